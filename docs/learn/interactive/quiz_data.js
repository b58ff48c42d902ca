// Written by scripts/docs/quiz_data.py from quiz.yaml.
const QUIZ = [
 {
  "id": "vanishing-cause",
  "lesson": 1,
  "kind": "choice",
  "question": "Eight layers of Linear and ReLU, width 512, PyTorch's default weights, input of standard deviation 1. What is lost on the way, so that the first layers cannot learn?",
  "choices": [
   {
    "text": "The learning rate: PyTorch's default one is too large for a stack of eight layers.",
    "correct": false,
    "explanation": "Nothing has been trained yet. What is lost is lost at initialization, before the first step."
   },
   {
    "text": "The standard deviation of the activations, which falls to zero because every ReLU removes half of the numbers.",
    "correct": false,
    "explanation": "It falls to 0.016 and stays there, at layer 24 as at layer 8, because the biases keep it up."
   },
   {
    "text": "Nothing is lost. The network has too many parameters, so it needs more steps before its first layers learn.",
    "correct": false,
    "explanation": "The number of parameters does not change what happens to the signal at initialization."
   },
   {
    "text": "The information about the input, and the gradient. Each layer multiplies both by a factor below 1.",
    "correct": true,
    "explanation": "At layer 8 less than 1 % of the variance depends on the input, and the gradient has shrunk to less than a hundredth. The standard deviation shows neither."
   }
  ],
  "answer": null,
  "tolerance": null,
  "unit": "",
  "explanation": "",
  "figure": "",
  "figure_text": ""
 },
 {
  "id": "gradient-per-layer",
  "lesson": 1,
  "kind": "numeric",
  "question": "By which factor is the gradient multiplied per layer in a stack of Linear (PyTorch's default weights) and ReLU?",
  "choices": [],
  "answer": 0.408,
  "tolerance": 0.02,
  "unit": "factor",
  "explanation": "The weights have variance 1/(3n) and a ReLU lets half of the gradient's square through, so the square keeps 1/6 and the gradient √(1/6) = 0.408.",
  "figure": "",
  "figure_text": ""
 },
 {
  "id": "floor-of-another-width",
  "lesson": 1,
  "kind": "numeric",
  "question": "The biases of PyTorch's default initialization keep the RMS of a deep stack at 1/√(5n). What is that at width 128?",
  "choices": [],
  "answer": 0.0395,
  "tolerance": 0.001,
  "unit": "RMS",
  "explanation": "1/√(5 · 128) = 0.0395. At width 512 it is 0.0198. So a value such as 0.016 says something about the width, not about the depth.",
  "figure": "",
  "figure_text": ""
 },
 {
  "id": "twenty-layers",
  "lesson": 1,
  "kind": "choice",
  "question": "The same stack of width 512 with 20 layers instead of 8. What is the standard deviation at the last layer?",
  "choices": [
   {
    "text": "About the same as at layer 8.",
    "correct": true,
    "explanation": "Both are 0.016. The biases hold it there. Only the information goes on falling."
   },
   {
    "text": "About a thousandth of that of layer 8, as every layer multiplies it by the same factor.",
    "correct": false,
    "explanation": "That would be right without biases. With them the ratio of layer 20 to layer 8 is close to 1."
   },
   {
    "text": "Zero, because after so many ReLUs no feature is left.",
    "correct": false,
    "explanation": "It cannot be zero. Every layer adds its biases."
   }
  ],
  "answer": null,
  "tolerance": null,
  "unit": "",
  "explanation": "",
  "figure": "",
  "figure_text": ""
 },
 {
  "id": "logarithmic-axis",
  "lesson": 1,
  "kind": "choice",
  "question": "Why is the gradient by depth drawn on a logarithmic axis?",
  "choices": [
   {
    "text": "Because a loss has to be positive, and a logarithmic axis shows positive numbers only.",
    "correct": false,
    "explanation": "The figure shows gradients. And a logarithmic axis is a choice about what is easy to see, not about signs."
   },
   {
    "text": "Because it makes small differences between two curves look larger than they are on a linear axis.",
    "correct": false,
    "explanation": "It shows equal ratios as equal distances, for small numbers as for large ones."
   },
   {
    "text": "Because the same factor per layer is a straight line there, so a different factor is seen as a bend.",
    "correct": true,
    "explanation": "In the stack the logarithm of the gradient falls by the same amount at every layer. A straight line fits it with R² above 0.99."
   }
  ],
  "answer": null,
  "tolerance": null,
  "unit": "",
  "explanation": "",
  "figure": "",
  "figure_text": ""
 },
 {
  "id": "skip-or-norm",
  "lesson": 1,
  "kind": "choice",
  "question": "A skip connection also helps against a vanishing signal. What does a norm do that it does not?",
  "choices": [
   {
    "text": "It bounds what each layer adds. A skip connection prevents that the signal vanishes, not that it grows.",
    "correct": true,
    "explanation": "x + Wx doubles the mean square at each layer, and in 16 layers the RMS grows more than 100 times. With Pre-LN every layer adds a branch of size 1, and the RMS grows to about √17 = 4.1."
   },
   {
    "text": "Nothing. One of the two is enough, since both keep the signal from vanishing.",
    "correct": false,
    "explanation": "With a skip connection alone and weights of variance 1/width the stream grows more than 100 times in 16 layers."
   },
   {
    "text": "It makes the skip connection superfluous, since it sets the size of the signal at every layer.",
    "correct": false,
    "explanation": "A norm keeps the size but not the information. Without a skip connection each ReLU still makes different inputs more similar."
   }
  ],
  "answer": null,
  "tolerance": null,
  "unit": "",
  "explanation": "",
  "figure": "",
  "figure_text": ""
 },
 {
  "id": "fp16-overflow-depth",
  "lesson": 1,
  "kind": "numeric",
  "question": "A token of RMS 1 goes through linear layers of width 512 whose weights are N(0, 1), all in fp16 (largest number 65,504). After how many layers is a number infinite?",
  "choices": [],
  "answer": 4.0,
  "tolerance": 0.0,
  "unit": "layers",
  "explanation": "Each layer multiplies by √512 = 22.6. After 3 layers the RMS is 11,585, after 4 it would be 262,144.",
  "figure": "",
  "figure_text": ""
 },
 {
  "id": "norm-after-the-loss",
  "lesson": 1,
  "kind": "choice",
  "question": "The stack of 8 layers has lost nearly all information. Now one RMSNorm is put after the last layer. What does it bring back?",
  "choices": [
   {
    "text": "The standard deviation and the information. The tokens are as different again as the inputs were.",
    "correct": false,
    "explanation": "A norm multiplies each token by one number. It cannot make two equal tokens different again."
   },
   {
    "text": "Neither. What eight layers have lost cannot be changed by anything behind them.",
    "correct": false,
    "explanation": "The size is restored. That is exactly what a norm does."
   },
   {
    "text": "The standard deviation, not the information.",
    "correct": true,
    "explanation": "The standard deviation is above 0.8 again, but still less than 1 % of the variance depends on the input. So norms have to stand in every block."
   }
  ],
  "answer": null,
  "tolerance": null,
  "unit": "",
  "explanation": "",
  "figure": "",
  "figure_text": ""
 },
 {
  "id": "rms-against-layer",
  "lesson": 2,
  "kind": "choice",
  "question": "What does RMSNorm leave out, compared with LayerNorm?",
  "choices": [
   {
    "text": "The gain. Its output is the token divided by its size, without parameters.",
    "correct": false,
    "explanation": "It has a gain per feature. Simple RMSNorm (arXiv 2307.14995) has none."
   },
   {
    "text": "The mean is not subtracted, and there is no bias.",
    "correct": true,
    "explanation": "So at width 512 it has 512 parameters instead of 1,024, and the mean of a token keeps its share of the token's size."
   },
   {
    "text": "The division by the size.",
    "correct": false,
    "explanation": "That is what it keeps. It divides by the root mean square."
   },
   {
    "text": "The statistics of the token. It takes those of a batch instead.",
    "correct": false,
    "explanation": "Both work on one token. Changing another token changes nothing. BatchNorm would be different."
   }
  ],
  "answer": null,
  "tolerance": null,
  "unit": "",
  "explanation": "",
  "figure": "",
  "figure_text": ""
 },
 {
  "id": "rmsnorm-by-hand",
  "lesson": 2,
  "kind": "numeric",
  "question": "RMSNorm of the token [3, 4], with gain 1 and ε = 0: what is its first feature?",
  "choices": [],
  "answer": 0.849,
  "tolerance": 0.005,
  "unit": "",
  "explanation": "The mean square is 12.5, its root 3.536, and 3 / 3.536 = 0.849.",
  "figure": "",
  "figure_text": ""
 },
 {
  "id": "eps-inside",
  "lesson": 2,
  "kind": "numeric",
  "question": "A token has RMS 0.001 and ε = 1e-5 is added inside the root. What is the RMS of RMSNorm's output?",
  "choices": [],
  "answer": 0.302,
  "tolerance": 0.01,
  "unit": "RMS",
  "explanation": "0.001 / √(0.000001 + 0.00001) = 0.302. The ε is ten times larger than the mean square.",
  "figure": "",
  "figure_text": ""
 },
 {
  "id": "eps-outside",
  "lesson": 2,
  "kind": "choice",
  "question": "The same token and ε = 1e-5, but now x / (RMS + ε). What is the RMS of the output?",
  "choices": [
   {
    "text": "0.990",
    "correct": true,
    "explanation": "0.001 / 0.00101 = 0.990. Outside the root, ε is compared with the RMS. Inside, it is compared with its square."
   },
   {
    "text": "Also 0.302, because the place of so small a number does not matter.",
    "correct": false,
    "explanation": "It matters as soon as the token is small. Outside the root the output has 0.990."
   },
   {
    "text": "Infinite, because nothing keeps the root from zero any more.",
    "correct": false,
    "explanation": "Neither form divides by zero, as both add ε."
   }
  ],
  "answer": null,
  "tolerance": null,
  "unit": "",
  "explanation": "",
  "figure": "",
  "figure_text": ""
 },
 {
  "id": "unbiased-variance",
  "lesson": 2,
  "kind": "numeric",
  "question": "Some code computes LayerNorm with `x.std(-1)`, which divides by width − 1. By which factor is its output multiplied at width 8, compared with the right one?",
  "choices": [],
  "answer": 0.935,
  "tolerance": 0.003,
  "unit": "factor",
  "explanation": "√(7/8) = 0.935. At width 512 the factor is 0.999, so nobody sees it there. A test with a small width does.",
  "figure": "",
  "figure_text": ""
 },
 {
  "id": "why-a-bias",
  "lesson": 2,
  "kind": "choice",
  "question": "LayerNorm has a bias and RMSNorm has none. Is the bias necessary because LayerNorm subtracts the mean?",
  "choices": [
   {
    "text": "Yes. Without it the output would always have mean 0, and the next layer could not work.",
    "correct": false,
    "explanation": "The next layer has a matrix and often a bias of its own, so it can make any mean."
   },
   {
    "text": "No. The next linear layer can contain it, and there are models with LayerNorm without a bias.",
    "correct": true,
    "explanation": "W(x̂ + b) is Wx̂ + Wb, which is a bias of the next layer. normlab has `norm=layernorm_nobias`, as nanoGPT has it."
   },
   {
    "text": "No. A gain does the same work as a bias, as RMSNorm shows, so LayerNorm has one of the two too many.",
    "correct": false,
    "explanation": "A gain multiplies. A feature that is 0 stays 0 under every gain, and a bias changes it."
   }
  ],
  "answer": null,
  "tolerance": null,
  "unit": "",
  "explanation": "",
  "figure": "",
  "figure_text": ""
 },
 {
  "id": "mean-is-zero-already",
  "lesson": 2,
  "kind": "choice",
  "question": "All tokens have mean 0 already. Do LayerNorm (bias 0) and RMSNorm still differ?",
  "choices": [
   {
    "text": "They give the same output. LayerNorm only does more work for it.",
    "correct": true,
    "explanation": "The variance of a token of mean 0 is its mean square. The largest difference is rounding, below 1e-6."
   },
   {
    "text": "LayerNorm's output is larger, because a standard deviation is smaller than a root mean square.",
    "correct": false,
    "explanation": "Both outputs have RMS 1, so neither is larger."
   },
   {
    "text": "RMSNorm's output has another mean, as it subtracts none.",
    "correct": false,
    "explanation": "RMSNorm multiplies all features by one number. A mean of 0 stays 0."
   }
  ],
  "answer": null,
  "tolerance": null,
  "unit": "",
  "explanation": "",
  "figure": "",
  "figure_text": ""
 },
 {
  "id": "what-rmsnorm-saves",
  "lesson": 2,
  "kind": "choice",
  "question": "What does RMSNorm save in every implementation?",
  "choices": [
   {
    "text": "Time. It takes 7 to 64 % less, as the paper on RMSNorm reports.",
    "correct": false,
    "explanation": "It depends on the implementation. With torch's functions on a CPU it took 2.71 to 3.18 times as long as LayerNorm."
   },
   {
    "text": "One mean, one subtraction, and the bias.",
    "correct": true,
    "explanation": "At width 512 these are 512 of 1,024 parameters. In a whole model both are small."
   },
   {
    "text": "Half of the model's memory, because it has half as many parameters.",
    "correct": false,
    "explanation": "It saves half of the norm's own parameters. In the default model that is less than 1 % of all."
   }
  ],
  "answer": null,
  "tolerance": null,
  "unit": "",
  "explanation": "",
  "figure": "",
  "figure_text": ""
 },
 {
  "id": "softmax-is-no-norm",
  "lesson": 2,
  "kind": "choice",
  "question": "Which change of its input leaves the output of softmax the same?",
  "choices": [
   {
    "text": "Multiplying all features by 2, because the outputs have the sum 1 again.",
    "correct": false,
    "explanation": "That makes the largest feature take more. A norm would not change."
   },
   {
    "text": "Adding 5 to all features.",
    "correct": true,
    "explanation": "The factor e⁵ cancels. RMSNorm does change here. So softmax and RMSNorm have opposite invariances."
   },
   {
    "text": "Both, because softmax normalizes a token as LayerNorm does.",
    "correct": false,
    "explanation": "Only LayerNorm has both. Softmax changes when its input is doubled."
   }
  ],
  "answer": null,
  "tolerance": null,
  "unit": "",
  "explanation": "",
  "figure": "",
  "figure_text": ""
 },
 {
  "id": "token-of-zeros",
  "lesson": 2,
  "kind": "choice",
  "question": "What does RMSNorm with ε = 1e-5 give for a token of zeros?",
  "choices": [
   {
    "text": "NaN, because the token is divided by its own size, which is 0.",
    "correct": false,
    "explanation": "That would be 0/0. With ε inside the root the divisor is √ε = 0.0032, not 0."
   },
   {
    "text": "Ones, because the output of RMSNorm has RMS 1.",
    "correct": false,
    "explanation": "A norm multiplies the token by a number. Zeros stay zeros."
   },
   {
    "text": "Zeros, because ε keeps the divisor above 0.",
    "correct": true,
    "explanation": "0 / 0.0032 = 0. But the slope there is the steepest of all: 316."
   }
  ],
  "answer": null,
  "tolerance": null,
  "unit": "",
  "explanation": "",
  "figure": "",
  "figure_text": ""
 },
 {
  "id": "steepest-slope",
  "lesson": 2,
  "kind": "numeric",
  "question": "How large is the derivative of RMSNorm at a token of zeros, with ε = 1e-6 as in Gemma and Qwen?",
  "choices": [],
  "answer": 1000.0,
  "tolerance": 10.0,
  "unit": "",
  "explanation": "1/√ε = 1000. With ε = 1e-5 it is 316.",
  "figure": "",
  "figure_text": ""
 },
 {
  "id": "dyt-and-a-small-token",
  "lesson": 2,
  "kind": "choice",
  "question": "The token [1, −2, 3, −4] is multiplied by 0.01. DyT (tanh of each feature, alpha 1) and RMSNorm read it. What are the sizes of the outputs?",
  "choices": [
   {
    "text": "RMSNorm about 1, DyT 0.027.",
    "correct": true,
    "explanation": "Near zero a tanh is the identity. DyT leaves small numbers small, so the scale depends on the initialization. This is one reason why DyT needs a suitable alpha."
   },
   {
    "text": "Both about 1. DyT replaces a norm, so it restores the size as a norm does.",
    "correct": false,
    "explanation": "DyT has no statistic, so it cannot know that the token is small. Its output has RMS 0.027."
   },
   {
    "text": "DyT about 1, RMSNorm 0.027. A tanh brings every feature near its limit.",
    "correct": false,
    "explanation": "It is the other way round. RMSNorm divides by the size."
   }
  ],
  "answer": null,
  "tolerance": null,
  "unit": "",
  "explanation": "",
  "figure": "",
  "figure_text": ""
 },
 {
  "id": "torch-default-eps",
  "lesson": 2,
  "kind": "choice",
  "question": "`torch.nn.RMSNorm(512)` without further arguments: which ε does it use for fp32?",
  "choices": [
   {
    "text": "1e-5, the default of torch.nn.LayerNorm",
    "correct": false,
    "explanation": "LayerNorm's default is 1e-5, RMSNorm's is `None`."
   },
   {
    "text": "The step of the format at 1, 1.2e-7",
    "correct": true,
    "explanation": "`eps=None` means `torch.finfo(dtype).eps`. It is another number in another format, so give ε always."
   },
   {
    "text": "None at all. It divides by zero for a token of zeros.",
    "correct": false,
    "explanation": "The output for zeros is 0, so there is an ε."
   }
  ],
  "answer": null,
  "tolerance": null,
  "unit": "",
  "explanation": "",
  "figure": "",
  "figure_text": ""
 },
 {
  "id": "layernorm-instead",
  "lesson": 2,
  "kind": "choice",
  "question": "A norm stands before each ReLU of the stack. Does it matter for the signal whether it is RMSNorm or LayerNorm?",
  "choices": [
   {
    "text": "Hardly. Both keep the standard deviation after the ReLU near 0.58.",
    "correct": true,
    "explanation": "A norm gives numbers of size 1, and a ReLU of N(0, 1) has a standard deviation of 0.58. The mean before the ReLU is near zero anyway, so the two norms do nearly the same."
   },
   {
    "text": "Yes. RMSNorm keeps the signal, and LayerNorm removes a part of it with the mean.",
    "correct": false,
    "explanation": "Both divide by a statistic of the token. After 8 layers their standard deviations differ by less than 5 %."
   },
   {
    "text": "Yes. LayerNorm keeps the mean at 1 and RMSNorm does not.",
    "correct": false,
    "explanation": "LayerNorm sets the mean to 0, not to 1."
   }
  ],
  "answer": null,
  "tolerance": null,
  "unit": "",
  "explanation": "",
  "figure": "",
  "figure_text": ""
 },
 {
  "id": "shift-of-the-token",
  "lesson": 3,
  "kind": "choice",
  "question": "5 is added to all features of a token. Which norm gives the same output?",
  "choices": [
   {
    "text": "LayerNorm",
    "correct": true,
    "explanation": "It subtracts the mean first, and the 5 goes with it."
   },
   {
    "text": "RMSNorm",
    "correct": false,
    "explanation": "The token is longer now and points elsewhere, so the output changes by more than its own RMS, which is 1."
   },
   {
    "text": "ScaleNorm",
    "correct": false,
    "explanation": "It is RMSNorm with one gain, so it changes in the same way."
   },
   {
    "text": "DyT",
    "correct": false,
    "explanation": "The tanh saturates. All features move towards 1."
   }
  ],
  "answer": null,
  "tolerance": null,
  "unit": "",
  "explanation": "",
  "figure": "",
  "figure_text": ""
 },
 {
  "id": "weights-times-ten",
  "lesson": 3,
  "kind": "numeric",
  "question": "The weight matrix before an RMSNorm is multiplied by 10. The output stays the same. By which factor does the gradient of this matrix change?",
  "choices": [],
  "answer": 0.1,
  "tolerance": 0.005,
  "unit": "factor",
  "explanation": "If the output does not depend on the size of the weights, a step of the same relative size has the same effect, so the gradient is divided by 10.",
  "figure": "",
  "figure_text": ""
 },
 {
  "id": "folding-a-gain",
  "lesson": 3,
  "kind": "choice",
  "question": "In which placement can the gain of a norm be multiplied into the next matrix, without changing the model's function?",
  "choices": [
   {
    "text": "Post-LN only, where the norm is the last operation of the block",
    "correct": false,
    "explanation": "In Post-LN the normalized stream also goes through the skip connection, and the fold is missing there."
   },
   {
    "text": "Both, because a gain and a matrix after it are one matrix wherever they stand",
    "correct": false,
    "explanation": "In Post-LN the skip connection reads the gain too, so the function changes."
   },
   {
    "text": "Pre-LN only, where nothing but a matrix reads the norm's output",
    "correct": true,
    "explanation": "There only a matrix reads the norm's output. So column j of the matrix takes gain j. The outputs agree to rounding."
   }
  ],
  "answer": null,
  "tolerance": null,
  "unit": "",
  "explanation": "",
  "figure": "",
  "figure_text": ""
 },
 {
  "id": "scalenorm-is-rmsnorm",
  "lesson": 3,
  "kind": "choice",
  "question": "What is the difference between ScaleNorm and RMSNorm?",
  "choices": [
   {
    "text": "None. They are the same function with the same parameters, from two papers.",
    "correct": false,
    "explanation": "At the start, yes. But RMSNorm can learn a gain per feature and ScaleNorm cannot."
   },
   {
    "text": "ScaleNorm subtracts the mean before it divides by the length. RMSNorm does not.",
    "correct": false,
    "explanation": "It does not. Its output changes when 5 is added to all features."
   },
   {
    "text": "ScaleNorm has one gain for all features, RMSNorm one for each. Otherwise they agree, apart from ε.",
    "correct": true,
    "explanation": "g · x/‖x‖ with g = √width is x/RMS. At width 512 ScaleNorm has 1 parameter and RMSNorm 512."
   }
  ],
  "answer": null,
  "tolerance": null,
  "unit": "",
  "explanation": "",
  "figure": "",
  "figure_text": ""
 },
 {
  "id": "negated-token",
  "lesson": 3,
  "kind": "choice",
  "question": "All features of a token are multiplied by −1. When does LayerNorm give the negative of its old output?",
  "choices": [
   {
    "text": "Always, because a norm changes the size of a token and never its direction",
    "correct": false,
    "explanation": "The bias is added at the end and does not change its sign with the token."
   },
   {
    "text": "Only as long as its bias is zero",
    "correct": true,
    "explanation": "Then N(−x) = −N(x), as at initialization. RMSNorm has no bias, so it holds there for every gain."
   },
   {
    "text": "Never, because the mean changes",
    "correct": false,
    "explanation": "The mean changes its sign too, so x − mean changes its sign as a whole."
   }
  ],
  "answer": null,
  "tolerance": null,
  "unit": "",
  "explanation": "",
  "figure": "",
  "figure_text": ""
 },
 {
  "id": "doubled-embedding",
  "lesson": 3,
  "kind": "choice",
  "question": "The embedding of every token is doubled, and the head, a matrix of its own, stays. What changes in a Pre-LN model (ε = 0)?",
  "choices": [
   {
    "text": "Nothing. The first norm removes the factor, and all that follows sees the numbers of before.",
    "correct": false,
    "explanation": "The first norm does. But the skip connection passes the doubled stream on, and what the sublayers add has its old size."
   },
   {
    "text": "The output of the first norm stays. The stream after the first block is not the doubled one, and the logits change.",
    "correct": true,
    "explanation": "The stream becomes 2x + f(N(x)) instead of x + f(N(x)). The sublayers have less weight in it."
   },
   {
    "text": "Everything is doubled, also the logits, because a skip connection takes the embedding to the head.",
    "correct": false,
    "explanation": "The final norm sets the size. Only the direction of the stream can change the logits."
   }
  ],
  "answer": null,
  "tolerance": null,
  "unit": "",
  "explanation": "",
  "figure": "",
  "figure_text": ""
 },
 {
  "id": "analogy",
  "lesson": 3,
  "kind": "choice",
  "question": "A norm is compared with a pressure regulator on a tap. Where does this comparison break?",
  "choices": [
   {
    "text": "A regulator holds one pressure. A norm rescales a vector, whose direction carries the information and stays.",
    "correct": true,
    "explanation": "RMSNorm at gain 1 leaves the direction as it is (cosine 1). The analogy knows only a size, no direction."
   },
   {
    "text": "A regulator gives a constant pressure, and the output of a norm follows the size of its input.",
    "correct": false,
    "explanation": "This is where the comparison holds. 10 times the input gives the same output."
   },
   {
    "text": "In the backward pass, where a norm does nothing: the gradient of its input is the same for an input of any size.",
    "correct": false,
    "explanation": "A norm acts on the gradient too. An input that is 10 times larger gets a gradient that is 10 times smaller."
   }
  ],
  "answer": null,
  "tolerance": null,
  "unit": "",
  "explanation": "",
  "figure": "",
  "figure_text": ""
 },
 {
  "id": "norms-in-eight-blocks",
  "lesson": 4,
  "kind": "numeric",
  "question": "How many norms does a Pre-LN model with eight blocks have, as it is built here and in Llama?",
  "choices": [],
  "answer": 17.0,
  "tolerance": 0.0,
  "unit": "norms",
  "explanation": "Two per block are 16, and a final norm before the head makes 17. A tutorial that says 16 forgot the final one.",
  "figure": "",
  "figure_text": ""
 },
 {
  "id": "norms-in-a-sandwich",
  "lesson": 4,
  "kind": "numeric",
  "question": "And with `placement=sandwich` (a norm before and after every sublayer), eight blocks?",
  "choices": [],
  "answer": 33.0,
  "tolerance": 0.0,
  "unit": "norms",
  "explanation": "Four per block are 32, and the final norm makes 33.",
  "figure": "",
  "figure_text": ""
 },
 {
  "id": "where-on-the-skip-path",
  "lesson": 4,
  "kind": "choice",
  "question": "What is the difference between Pre-LN and Post-LN that matters most?",
  "choices": [
   {
    "text": "In Post-LN every norm lies on the skip path. In Pre-LN none does.",
    "correct": true,
    "explanation": "Set all branches to zero: a Pre-LN block then returns its input unchanged. A Post-LN block returns its normalized input."
   },
   {
    "text": "Pre-LN has fewer norms, so it changes the signal less.",
    "correct": false,
    "explanation": "It has one more, the final norm. Eight blocks have 17 instead of 16."
   },
   {
    "text": "Post-LN normalizes over the batch, Pre-LN over the features of a token.",
    "correct": false,
    "explanation": "Both normalize each token on its own."
   }
  ],
  "answer": null,
  "tolerance": null,
  "unit": "",
  "explanation": "",
  "figure": "",
  "figure_text": ""
 },
 {
  "id": "what-pre-ln-gains",
  "lesson": 4,
  "kind": "choice",
  "question": "Why is Pre-LN easier to train than Post-LN at depth?",
  "choices": [
   {
    "text": "It uses the GPU better, so more steps fit into the same time.",
    "correct": false,
    "explanation": "The work is nearly the same. One norm more or less does not matter."
   },
   {
    "text": "It has fewer parameters, so a step of the same size changes the output less.",
    "correct": false,
    "explanation": "It has the same and a final norm."
   },
   {
    "text": "It has a path from the last block to the first without a norm in it.",
    "correct": true,
    "explanation": "The derivative of x + f(N(x)) contains the identity. In Post-LN every block multiplies the gradient by the derivative of a norm."
   }
  ],
  "answer": null,
  "tolerance": null,
  "unit": "",
  "explanation": "",
  "figure": "",
  "figure_text": ""
 },
 {
  "id": "last-gradient-by-depth",
  "lesson": 4,
  "kind": "choice",
  "question": "At initialization by the theory of Xiong et al. (arXiv 2002.04745): how does the gradient of the last feed-forward change when the depth goes from 2 to 8 blocks?",
  "choices": [
   {
    "text": "In Pre-LN it is about halved. In Post-LN it stays.",
    "correct": true,
    "explanation": "The theory says 1/√L for Pre-LN, so 4 times the depth gives a half, and no change for Post-LN."
   },
   {
    "text": "In Post-LN it is about halved. In Pre-LN it stays.",
    "correct": false,
    "explanation": "It is the other way round. The stream of Pre-LN grows with depth, and the final norm divides by it."
   },
   {
    "text": "Both are about halved, because the depth is the same for both.",
    "correct": false,
    "explanation": "The stream of Post-LN has size 1 at any depth, so its last gradient does not know the depth."
   }
  ],
  "answer": null,
  "tolerance": null,
  "unit": "",
  "explanation": "",
  "figure": "",
  "figure_text": ""
 },
 {
  "id": "why-a-smaller-rate",
  "lesson": 4,
  "kind": "choice",
  "question": "Why does a deep Post-LN model need a smaller learning rate or a warm-up?",
  "choices": [
   {
    "text": "Because a norm makes rounding errors, which add up from block to block on the skip path and need small steps.",
    "correct": false,
    "explanation": "Both placements use the same norm in the same precision."
   },
   {
    "text": "Because its gradients vanish near the output, so that a large step has a random direction.",
    "correct": false,
    "explanation": "They are largest there."
   },
   {
    "text": "Because its gradients near the output do not become smaller with depth, while all layers change together.",
    "correct": true,
    "explanation": "With 8 blocks its last feed-forward gets more than twice the gradient of Pre-LN's. A large first step then changes the output too much."
   }
  ],
  "answer": null,
  "tolerance": null,
  "unit": "",
  "explanation": "",
  "figure": "",
  "figure_text": ""
 },
 {
  "id": "sixteen-and-thirty-two-blocks",
  "lesson": 4,
  "kind": "choice",
  "question": "In the experiment `prenorm_vs_postnorm` Pre-LN ends lower than Post-LN by 0.1806 ± 0.0259 with 4 blocks, 0.1717 ± 0.0273 with 8 and 0.4246 ± 0.5593 with 16. What follows for 32?",
  "choices": [
   {
    "text": "The advantage grows with depth, as the last two numbers show, so with 32 blocks it is more than 0.4246.",
    "correct": false,
    "explanation": "From 4 to 8 blocks it does not grow, and the interval at 16 blocks holds both of the other values."
   },
   {
    "text": "With many blocks the placements are the same, for with 16 the interval contains zero.",
    "correct": false,
    "explanation": "An interval that contains zero and is this wide is no equality. With 16 blocks one Post-LN run of five learned token frequencies only."
   },
   {
    "text": "Nothing certain. The intervals show no trend over depth, and 300 steps judge only the start.",
    "correct": true,
    "explanation": "All three intervals have values in common. A longer run, a smaller rate or more seeds can change the picture."
   }
  ],
  "answer": null,
  "tolerance": null,
  "unit": "",
  "explanation": "",
  "figure": "",
  "figure_text": ""
 },
 {
  "id": "drawback-of-pre-ln",
  "lesson": 4,
  "kind": "choice",
  "question": "Does Pre-LN have a drawback?",
  "choices": [
   {
    "text": "The stream grows with depth, so what a late block adds is small beside it.",
    "correct": true,
    "explanation": "At initialization by theory the mean square grows by 1/2 to 3/2 per block. A branch of the same size then changes the direction less and less."
   },
   {
    "text": "Its last output is not normalized, so the logits grow.",
    "correct": false,
    "explanation": "Every real Pre-LN model has a final norm before the head. The output of the last block is normalized there."
   },
   {
    "text": "It cannot be trained without warm-up, because its gradients grow with depth.",
    "correct": false,
    "explanation": "It needs warm-up less than Post-LN, since its gradients near the output shrink with depth. How much is a question of length and rate."
   }
  ],
  "answer": null,
  "tolerance": null,
  "unit": "",
  "explanation": "",
  "figure": "",
  "figure_text": ""
 },
 {
  "id": "no-norm-and-a-small-rate",
  "lesson": 4,
  "kind": "choice",
  "question": "A tutorial asks \"why does a network without norms become NaN even at a tiny learning rate?\" What is wrong with the question?",
  "choices": [
   {
    "text": "Nothing. Without a norm every network becomes NaN in the end.",
    "correct": false,
    "explanation": "A small model without norms, trained here for 40 steps at 1e-4, has finite losses only."
   },
   {
    "text": "Its assumption. The tutorial's own script, at its rate of 1e-4, ends without a NaN.",
    "correct": true,
    "explanation": "Run unchanged, it ends at a loss of 6.946. Without a norm a network trains at a small rate and diverges at a large one."
   },
   {
    "text": "The norm has no part in it. The NaN comes from the data, which are random tokens.",
    "correct": false,
    "explanation": "There is no NaN to be explained."
   }
  ],
  "answer": null,
  "tolerance": null,
  "unit": "",
  "explanation": "",
  "figure": "",
  "figure_text": ""
 },
 {
  "id": "two-blocks-or-eight",
  "lesson": 4,
  "kind": "choice",
  "question": "The tutorial compares four configurations with two layers only. What does it miss?",
  "choices": [
   {
    "text": "Nothing. Norms matter equally at every depth, and two layers are trained in less time.",
    "correct": false,
    "explanation": "With 2 blocks Pre-LN's and Post-LN's last gradients are alike within a factor of 1.5, with 8 blocks not."
   },
   {
    "text": "Depth. Differences between placements grow with it, at initialization already.",
    "correct": true,
    "explanation": "By the theory's initialization the ratio of the last gradients, Post-LN to Pre-LN, is above 2 with 8 blocks and below 1.5 with 2."
   },
   {
    "text": "A larger batch. The noise of a small one hides a norm's effect.",
    "correct": false,
    "explanation": "The size of the batch changes noise, not how a signal passes through depth."
   }
  ],
  "answer": null,
  "tolerance": null,
  "unit": "",
  "explanation": "",
  "figure": "",
  "figure_text": ""
 },
 {
  "id": "deepnorm-alpha",
  "lesson": 4,
  "kind": "numeric",
  "question": "DeepNorm multiplies the skip connection by (2L)^¼. How much is that with eight blocks?",
  "choices": [],
  "answer": 2.0,
  "tolerance": 0.01,
  "unit": "factor",
  "explanation": "(2 · 8)^¼ = 16^¼ = 2.",
  "figure": "",
  "figure_text": ""
 },
 {
  "id": "figure-with-three-rows",
  "lesson": 4,
  "kind": "figure",
  "question": "Look at the panel of the signal in a Transformer, at the top right. Which of these curves grows by the largest factor from block 1 to block 16?",
  "choices": [
   {
    "text": "LayerNorm in Pre-LN",
    "correct": false,
    "explanation": "It ends highest of the four, but it starts high too. It grows by a factor of 4.52."
   },
   {
    "text": "LayerNorm in Post-LN",
    "correct": false,
    "explanation": "It stays at 1. Each block ends with a norm on the skip path."
   },
   {
    "text": "DyT in Pre-LN",
    "correct": true,
    "explanation": "By a factor of 46, against 4.52 with LayerNorm. DyT passes a small number on as it is, so a branch grows with the stream until the stream is large enough for the tanh to limit it."
   },
   {
    "text": "DyT in Post-LN",
    "correct": false,
    "explanation": "By a factor of 6.69. It grows in the first blocks only and then stays below 1."
   }
  ],
  "answer": null,
  "tolerance": null,
  "unit": "",
  "explanation": "",
  "figure": "../figures/gradient_vanishing.png",
  "figure_text": "Nine panels. The rows show signal, information and gradient by depth. The columns are a plain stack, a stack with norms, and the stream of a Transformer, with one curve for each norm and placement."
 },
 {
  "id": "figure-with-crosses",
  "lesson": 5,
  "kind": "figure",
  "question": "Look at the panel of the final loss at every rate. Which runs diverged?",
  "choices": [
   {
    "text": "Those without a norm, at 1e-2 and at 0.03",
    "correct": true,
    "explanation": "There are 4 of 5 runs at 1e-2, and 5 of 5 at 0.03. The hollow point at 1e-2 is the run that did not diverge."
   },
   {
    "text": "Those without a norm, at 0.03 alone",
    "correct": false,
    "explanation": "There is another cross at 1e-2, where 4 of 5 runs diverged."
   },
   {
    "text": "Those without a norm and those of Post-LN, at 0.03",
    "correct": false,
    "explanation": "Post-LN ends at 3.3443 there. It has learned only how frequent letters are, but its loss is finite and it has no cross."
   },
   {
    "text": "Those of Post-LN, at all rates from 3e-3 on",
    "correct": false,
    "explanation": "They learn hardly any context there, with a loss near the dotted line. A × marks runs that diverged."
   }
  ],
  "answer": null,
  "tolerance": null,
  "unit": "",
  "explanation": "",
  "figure": "../figures/norm_comparison.png",
  "figure_text": "Training curves of four arms at one learning rate, the final loss of each arm at five learning rates, with crosses where runs diverged, and the final loss of each arm at its own best rate."
 },
 {
  "id": "figure-by-depth-and-warm-up",
  "lesson": 5,
  "kind": "figure",
  "question": "Look at the two panels with 8 blocks. At which learning rate, and with or without warm-up, does Pre-LN reach its lowest loss?",
  "choices": [
   {
    "text": "At 1e-3, without warm-up",
    "correct": false,
    "explanation": "That is its best rate without warm-up, but with warm-up a larger rate ends lower."
   },
   {
    "text": "At 3e-3, with warm-up",
    "correct": true,
    "explanation": "It ends at 2.4653 there. Without warm-up the same rate ends far above 1e-3."
   },
   {
    "text": "At 3e-3, without warm-up",
    "correct": false,
    "explanation": "Without warm-up its loss at this rate is far above that at 1e-3."
   },
   {
    "text": "At 1e-3, with warm-up",
    "correct": false,
    "explanation": "With warm-up the larger rate of 3e-3 ends lower."
   }
  ],
  "answer": null,
  "tolerance": null,
  "unit": "",
  "explanation": "",
  "figure": "../figures/prenorm_vs_postnorm.png",
  "figure_text": "Panels by number of blocks and by warm-up. In each, the final loss of two arms by learning rate."
 },
 {
  "id": "uniform-guess",
  "lesson": 5,
  "kind": "numeric",
  "question": "A model guesses all of 1000 tokens with the same probability. What is its loss, in nats?",
  "choices": [],
  "answer": 6.908,
  "tolerance": 0.01,
  "unit": "nats per token",
  "explanation": "ln 1000 = 6.908. The tutorial's own script, run unchanged, ends between 6.574 and 6.946, near that number, because it trains on random tokens.",
  "figure": "",
  "figure_text": ""
 },
 {
  "id": "one-seed",
  "lesson": 5,
  "kind": "choice",
  "question": "Two norms are trained once each, with one seed. One ends 0.01 lower. What do you know?",
  "choices": [
   {
    "text": "The norm that ends lower is better, at least at this rate.",
    "correct": false,
    "explanation": "With one seed there is no interval. The same norm with another seed may differ by as much."
   },
   {
    "text": "They are the same within 0.01, since the two losses do not differ by more than that.",
    "correct": false,
    "explanation": "That would need an interval that lies within the margin. There is none."
   },
   {
    "text": "Nothing about the norms yet. One seed has no interval.",
    "correct": true,
    "explanation": "A variance needs two values at least. The verdict of such a study says so in words."
   }
  ],
  "answer": null,
  "tolerance": null,
  "unit": "",
  "explanation": "",
  "figure": "",
  "figure_text": ""
 },
 {
  "id": "interval-with-zero",
  "lesson": 5,
  "kind": "choice",
  "question": "The difference of two arms is 0.0042 ± 0.0155, and no margin was chosen. What is the verdict?",
  "choices": [
   {
    "text": "Cannot tell.",
    "correct": true,
    "explanation": "Zero lies between −0.0113 and 0.0197, and nothing says that 0.0197 would be small enough to be \"the same\"."
   },
   {
    "text": "One arm ends lower, because the difference of the means is not zero.",
    "correct": false,
    "explanation": "The interval, from −0.0113 to 0.0197, contains zero."
   },
   {
    "text": "The two arms are the same, because the interval contains zero.",
    "correct": false,
    "explanation": "An interval that contains zero also contains differences up to 0.0197."
   }
  ],
  "answer": null,
  "tolerance": null,
  "unit": "",
  "explanation": "",
  "figure": "",
  "figure_text": ""
 },
 {
  "id": "same-within-a-margin",
  "lesson": 5,
  "kind": "choice",
  "question": "The difference is 0.0002 ± 0.0045, and the study was run with `margin=0.01`. What is the verdict?",
  "choices": [
   {
    "text": "Cannot tell, because the interval contains zero.",
    "correct": false,
    "explanation": "Without a margin, yes. With one, the interval lies within it."
   },
   {
    "text": "One arm ends lower, by less than the margin.",
    "correct": false,
    "explanation": "The interval contains zero."
   },
   {
    "text": "The same within the margin.",
    "correct": true,
    "explanation": "The whole interval, from −0.0043 to 0.0047, lies within ± 0.01."
   }
  ],
  "answer": null,
  "tolerance": null,
  "unit": "",
  "explanation": "",
  "figure": "",
  "figure_text": ""
 },
 {
  "id": "loss-on-random-tokens",
  "lesson": 5,
  "kind": "choice",
  "question": "A script trains on tokens that are drawn at random, new ones at each step, with 1000 possible tokens. What is the lowest loss that a causal model can reach?",
  "choices": [
   {
    "text": "0, if it has enough parameters and trains long enough.",
    "correct": false,
    "explanation": "The next token cannot be known. There is nothing to learn."
   },
   {
    "text": "ln 1000",
    "correct": true,
    "explanation": "Each token has probability 1/1000 whatever came before, so no causal model goes below 6.908. A final loss of 6.574 in such a script shows that its attention was not masked and could look at the answer."
   },
   {
    "text": "It depends on the norm, as every final loss does.",
    "correct": false,
    "explanation": "The lowest possible loss is a property of the data."
   }
  ],
  "answer": null,
  "tolerance": null,
  "unit": "",
  "explanation": "",
  "figure": "",
  "figure_text": ""
 },
 {
  "id": "sixty-seven-times-faster",
  "lesson": 5,
  "kind": "numeric",
  "question": "A script prints \"RMSNorm is 6713 % faster\". By which factor would LayerNorm then be slower?",
  "choices": [],
  "answer": 68.13,
  "tolerance": 0.5,
  "unit": "factor",
  "explanation": "Faster by 100 % is a factor of 2, so 6713 % is a factor of 68.13. A slow implementation was compared with a fast one.",
  "figure": "",
  "figure_text": ""
 },
 {
  "id": "three-seeds-or-five",
  "lesson": 5,
  "kind": "choice",
  "question": "Four arms, one of them truly lower by 4 standard deviations of the noise. How often does a study with three seeds report that, by the simulation in docs/statistics.md?",
  "choices": [
   {
    "text": "In 98.8 % of studies",
    "correct": false,
    "explanation": "That is the number for five seeds."
   },
   {
    "text": "In 56.7 % of studies",
    "correct": true,
    "explanation": "With five seeds it is 98.8 %. So \"cannot tell\" after three seeds says little."
   },
   {
    "text": "Always, since 4 standard deviations are a lot",
    "correct": false,
    "explanation": "Three seeds also have to estimate the noise, which widens the interval."
   }
  ],
  "answer": null,
  "tolerance": null,
  "unit": "",
  "explanation": "",
  "figure": "",
  "figure_text": ""
 },
 {
  "id": "below-the-floor",
  "lesson": 5,
  "kind": "choice",
  "question": "On the synthetic language no model can end below the floor. A run with a new norm ends clearly below it. What has happened?",
  "choices": [
   {
    "text": "The norm is better than all that were known when the floor was computed.",
    "correct": false,
    "explanation": "The floor holds for every model that reads only earlier tokens."
   },
   {
    "text": "The learning rate was lucky. At another rate the same norm ends above the floor.",
    "correct": false,
    "explanation": "No rate can predict a token that is drawn at random."
   },
   {
    "text": "The norm lets tokens see later tokens.",
    "correct": true,
    "explanation": "An early version of the check let such a norm pass, and its loss was 1.12 where the floor was 1.41. A norm that averages a token with the next one is refused today."
   }
  ],
  "answer": null,
  "tolerance": null,
  "unit": "",
  "explanation": "",
  "figure": "",
  "figure_text": ""
 },
 {
  "id": "proof-for-the-mean",
  "lesson": 5,
  "kind": "choice",
  "question": "How could an experiment show that leaving out the mean costs nothing?",
  "choices": [
   {
    "text": "Train both with several seeds, each at its own best rate, and show that the interval of the difference lies within a margin chosen before.",
    "correct": true,
    "explanation": "\"The same\" needs a margin. An interval that only contains zero says \"cannot tell\". With five seeds and a small noise the interval fits into the margin."
   },
   {
    "text": "Train both once with the same seed, rate and number of steps. If the two losses agree in two digits, it is shown.",
    "correct": false,
    "explanation": "One seed has no interval. Two runs of one arm can differ by as much as two norms."
   },
   {
    "text": "Show that RMSNorm is faster, and that its loss falls as fast as LayerNorm's in the same time.",
    "correct": false,
    "explanation": "Time and loss are two questions."
   }
  ],
  "answer": null,
  "tolerance": null,
  "unit": "",
  "explanation": "",
  "figure": "",
  "figure_text": ""
 },
 {
  "id": "batchnorm-in-a-language-model",
  "lesson": 5,
  "kind": "choice",
  "question": "BatchNorm is put into a causal language model, with statistics over batch and time. What happens?",
  "choices": [
   {
    "text": "It trains well, and its loss is a fair one, since BatchNorm trains image models well.",
    "correct": false,
    "explanation": "A token's output then depends on later tokens, so the loss is too good."
   },
   {
    "text": "It is the same as LayerNorm, since both subtract a mean and divide by a standard deviation.",
    "correct": false,
    "explanation": "LayerNorm uses one token only."
   },
   {
    "text": "Tokens see later tokens through the statistics. normlab refuses it.",
    "correct": true,
    "explanation": "Change the last token, and the output of the first one changes. The check before training finds that and refuses the norm."
   }
  ],
  "answer": null,
  "tolerance": null,
  "unit": "",
  "explanation": "",
  "figure": "",
  "figure_text": ""
 },
 {
  "id": "why-fp32",
  "lesson": 6,
  "kind": "choice",
  "question": "Why does a norm compute its statistic in fp32 although its input has sixteen bits?",
  "choices": [
   {
    "text": "Because a sum in fp32 is faster on a CPU.",
    "correct": false,
    "explanation": "It is done for the numbers, not for the speed."
   },
   {
    "text": "Because bf16 underflows: the squares of small features become 0.",
    "correct": false,
    "explanation": "bf16 has the exponent of fp32. 0.0001² is 1e-8 in bf16, not 0."
   },
   {
    "text": "Because PyTorch raises an error for a mean of numbers of sixteen bits.",
    "correct": false,
    "explanation": "There is no error. In fp16 a token of 300s silently becomes zeros."
   },
   {
    "text": "Because fp16 overflows when squared, and bf16 loses digits in a sum.",
    "correct": true,
    "explanation": "300² is infinite in fp16. In bf16 256 + 1 is 256, where a partial sum is rounded to bf16."
   }
  ],
  "answer": null,
  "tolerance": null,
  "unit": "",
  "explanation": "",
  "figure": "",
  "figure_text": ""
 },
 {
  "id": "largest-square-in-fp16",
  "lesson": 6,
  "kind": "numeric",
  "question": "What is the largest whole number whose square is finite in fp16?",
  "choices": [],
  "answer": 255.0,
  "tolerance": 0.0,
  "unit": "",
  "explanation": "255² = 65,025 is below the largest number, 65,504. 256² = 65,536 is infinite.",
  "figure": "",
  "figure_text": ""
 },
 {
  "id": "sum-in-bf16",
  "lesson": 6,
  "kind": "numeric",
  "question": "A thousand ones are added up one after the other, and every partial sum is rounded to bf16. What is the result?",
  "choices": [],
  "answer": 256.0,
  "tolerance": 0.0,
  "unit": "",
  "explanation": "From 256 on, numbers in bf16 are 2 apart, and 256 + 1 is rounded back to 256. `torch.ones(1000).bfloat16().sum()` gives 1000 on a CPU, because torch adds up in fp32 and rounds once.",
  "figure": "",
  "figure_text": ""
 },
 {
  "id": "eps-in-fp16",
  "lesson": 6,
  "kind": "choice",
  "question": "ε = 1e-8, everything computed in fp16. What happens to a token of zeros?",
  "choices": [
   {
    "text": "It stays zero, because ε keeps the divisor above zero.",
    "correct": false,
    "explanation": "1e-8 is 0 in fp16, so the divisor is 0."
   },
   {
    "text": "It becomes NaN.",
    "correct": true,
    "explanation": "1e-8 is smaller than the smallest number of fp16, so ε is lost, and 0/0 is NaN."
   },
   {
    "text": "It becomes infinite, because the divisor is nearly zero.",
    "correct": false,
    "explanation": "0/0 is not infinite, it is not a number."
   }
  ],
  "answer": null,
  "tolerance": null,
  "unit": "",
  "explanation": "",
  "figure": "",
  "figure_text": ""
 },
 {
  "id": "order-of-casts",
  "lesson": 6,
  "kind": "choice",
  "question": "The input is bf16, the statistic fp32. Llama rounds and then multiplies by the gain, Gemma the other way round. Whose output is closer to the exact one?",
  "choices": [
   {
    "text": "Gemma's, which rounds once",
    "correct": true,
    "explanation": "Llama's order rounds twice, and its RMS error is more than 1.5 times as large."
   },
   {
    "text": "Llama's, which rounds before the product and not after it",
    "correct": false,
    "explanation": "It rounds the normalized token, and then the product."
   },
   {
    "text": "Both are exact",
    "correct": false,
    "explanation": "Each has rounding errors, since the output is bf16."
   }
  ],
  "answer": null,
  "tolerance": null,
  "unit": "",
  "explanation": "",
  "figure": "",
  "figure_text": ""
 },
 {
  "id": "nan-at-step-100",
  "lesson": 6,
  "kind": "choice",
  "question": "A model of 16 blocks gives NaN near step 100. What do you do first?",
  "choices": [
   {
    "text": "Set ε to 1e-3 in every norm, since a NaN comes from a division by a number near zero.",
    "correct": false,
    "explanation": "ε acts on small tokens. The square of a large token in fp16 is infinite with every ε."
   },
   {
    "text": "Change from bf16 to fp16, which has more digits, so that sums are more precise.",
    "correct": false,
    "explanation": "fp16 has more digits but a much smaller range. Its largest number is 65,504."
   },
   {
    "text": "Find the first layer whose output is not finite, and then look at rate and warm-up, format, missing norms and initialization, one at a time.",
    "correct": true,
    "explanation": "The first layer with a number that is not finite names the place. Then change one thing at a time, or you will not know which one it was."
   },
   {
    "text": "Drop the run and take another seed, since one seed in a few has a bad start.",
    "correct": false,
    "explanation": "A run that diverges is a result. Another seed hides it."
   }
  ],
  "answer": null,
  "tolerance": null,
  "unit": "",
  "explanation": "",
  "figure": "",
  "figure_text": ""
 },
 {
  "id": "largest-attention-logit",
  "lesson": 6,
  "kind": "numeric",
  "question": "QK-norm with gain 1 normalizes queries and keys per head. A head has 16 features. How large can an attention logit q·k/√16 get?",
  "choices": [],
  "answer": 4.0,
  "tolerance": 0.01,
  "unit": "",
  "explanation": "Both have RMS 1, so length √16, and their product is at most 16. Divided by √16 it is 4. Without QK-norm there is no bound.",
  "figure": "",
  "figure_text": ""
 },
 {
  "id": "rope-and-qk-norm",
  "lesson": 6,
  "kind": "choice",
  "question": "Some models normalize queries and keys before the rotary embedding (RoPE), some after it. With RMSNorm, is one of them a bug?",
  "choices": [
   {
    "text": "Yes. The norm after RoPE destroys the position, since it changes the vector.",
    "correct": false,
    "explanation": "RoPE turns a vector, and a turn does not change its RMS. The direction, which holds the position, stays."
   },
   {
    "text": "No. Without a gain the two orders give the same result. With a gain per feature they differ.",
    "correct": true,
    "explanation": "A rotation keeps the length, so norm and rotation can be exchanged. A gain per feature does not commute with a rotation of pairs of features."
   },
   {
    "text": "No. They are always the same, because a rotation keeps the length of a vector and a norm depends on nothing else.",
    "correct": false,
    "explanation": "With a gain per feature the results differ, as long as the gains are not equal."
   }
  ],
  "answer": null,
  "tolerance": null,
  "unit": "",
  "explanation": "",
  "figure": "",
  "figure_text": ""
 },
 {
  "id": "why-modern-models",
  "lesson": 6,
  "kind": "choice",
  "question": "What do the language models on the page \"what the models of today do\" use?",
  "choices": [
   {
    "text": "All use Pre-LN with RMSNorm, and the other norms and placements are found in research papers only.",
    "correct": false,
    "explanation": "Several have a norm at the output of a sublayer (OLMo 2), or before and after it (Gemma 2 and 3), and some have LayerNorm."
   },
   {
    "text": "More of them use RMSNorm than LayerNorm, and Pre-LN is the most frequent placement.",
    "correct": true,
    "explanation": "RMSNorm is simpler and as good in published comparisons. Pre-LN tolerates depth and rate. Neither is a law."
   },
   {
    "text": "Most use Post-LN, as the first Transformer did, but with RMSNorm.",
    "correct": false,
    "explanation": "Of the models on that page only the oldest have it, and one MiniMax model uses a variant of it."
   }
  ],
  "answer": null,
  "tolerance": null,
  "unit": "",
  "explanation": "",
  "figure": "",
  "figure_text": ""
 }
];
