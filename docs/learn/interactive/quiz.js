// The quiz: one question at a time, judged at once, with the explanation of what was chosen.
// Answers are stored in this browser where it allows that.
"use strict";

const STORAGE_KEY = "normlab-quiz";
const quizElement = (name) => document.getElementById(name);
const quizState = { lesson: "all", position: 0, answers: loadAnswers() };

function loadAnswers() {
  try {
    const stored = JSON.parse(localStorage.getItem(STORAGE_KEY) ?? "{}");
    return stored !== null && typeof stored === "object" && !Array.isArray(stored) ? stored : {};
  } catch {
    return {}; // no storage, or something else in it: the quiz starts anew
  }
}

function storeAnswers() {
  try {
    localStorage.setItem(STORAGE_KEY, JSON.stringify(quizState.answers));
  } catch {
    // Without storage the answers last as long as the page.
  }
}

function selectQuestions() {
  return QUIZ.filter((question) => quizState.lesson === "all" || String(question.lesson) === quizState.lesson);
}

// What an answer is worth: { correct, text }. `answer` is the number of a choice, or a typed number.
function judgeAnswer(question, answer) {
  if (question.kind !== "numeric") {
    const choice = question.choices[answer];
    return { correct: choice.correct, text: choice.explanation };
  }
  const typed = Number(String(answer).trim().replace("−", "-").replace(",", "."));
  // 0.428 is within 0.02 of 0.408, although their difference in binary is a little more.
  const correct = Math.abs(typed - question.answer) <= question.tolerance * (1 + 1e-9);
  return { correct, text: `${describeNumber(question)} ${question.explanation}` };
}

// The right number with its tolerance, in the words of the terminal's quiz.
function describeNumber(question) {
  const number = question.tolerance === 0
    ? `exactly ${question.answer}` : `${question.answer} ± ${question.tolerance}`;
  return `The answer is ${number}${question.unit ? ` (unit: ${question.unit})` : ""}.`;
}

// 1,000 is not read: its comma may separate thousands.
function hasThousands(text) {
  return /^[-−]?[1-9]\d{0,2}(,\d{3})+(\.\d+)?$/.test(String(text).trim());
}

function isNumber(text) {
  if (hasThousands(text)) return false;
  const plain = String(text).trim().replace("−", "-").replace(",", ".");
  return plain !== "" && Number.isFinite(Number(plain));
}

function isValidAnswer(question, answer) {
  if (question.kind === "numeric") return isNumber(answer);
  return Number.isInteger(answer) && answer >= 0 && answer < question.choices.length;
}

// Backticks of the questions as code; everything else is plain text.
function formatText(text) {
  return escapeHtml(text).replace(/`([^`]+)`/g, "<code>$1</code>");
}

function showQuestion() {
  const questions = selectQuestions();
  if (questions.length === 0) {
    quizElement("quiz-form").textContent = "There are no questions yet.";
    return;
  }
  const question = questions[quizState.position];
  const figure = question.kind === "figure"
    ? `<img src="${escapeHtml(question.figure)}" alt="${escapeHtml(question.figure_text)}">` : "";
  const fields = question.kind === "numeric"
    ? `<label>Your number <input type="text" inputmode="decimal" name="answer" autocomplete="off" size="10"></label> ${escapeHtml(question.unit ?? "")}`
    : question.choices.map((choice, index) =>
      `<label><input type="radio" name="answer" value="${index}"><span>${formatText(choice.text)}</span></label>`).join("");
  quizElement("quiz-form").innerHTML =
    `${figure}<fieldset><legend>${quizState.position + 1} of ${questions.length}: ${formatText(question.question)}</legend>${fields}</fieldset><p><button type="submit">Check</button></p>`;
  quizElement("quiz-previous").disabled = quizState.position === 0;
  quizElement("quiz-next").disabled = quizState.position === questions.length - 1;
  const answer = quizState.answers[question.id];
  if (isValidAnswer(question, answer)) {
    const field = quizElement("quiz-form").elements.answer;
    field.value = answer;
    showJudgement(question, answer);
  } else {
    quizElement("quiz-answer").textContent = "";
  }
  showScore();
}

function showJudgement(question, answer) {
  const { correct, text } = judgeAnswer(question, answer);
  quizElement("quiz-answer").innerHTML =
    `<p><span class="${correct ? "right" : "wrong"}">${correct ? "Right." : "Not right."}</span> ${formatText(text)}</p>`;
}

function isAnsweredRight(question) {
  const answer = quizState.answers[question.id];
  return isValidAnswer(question, answer) && judgeAnswer(question, answer).correct;
}

function showScore() {
  const questions = selectQuestions().filter((question) => isValidAnswer(question, quizState.answers[question.id]));
  const right = questions.filter(isAnsweredRight);
  quizElement("quiz-score").textContent = `${right.length} right of ${questions.length} answered, ${selectQuestions().length} in all`;
}

function checkAnswer(event) {
  event.preventDefault();
  const question = selectQuestions()[quizState.position];
  const value = new FormData(quizElement("quiz-form")).get("answer");
  const answer = question.kind === "numeric" || value === null ? value : Number(value);
  if (!isValidAnswer(question, answer)) {
    quizElement("quiz-answer").textContent = question.kind !== "numeric"
      ? "Please choose an answer first."
      : hasThousands(answer)
        ? "Please write thousands without a comma, for example 1000." : "Please type a number, for example 0.5.";
    return;
  }
  quizState.answers[question.id] = answer;
  storeAnswers();
  showJudgement(question, answer);
  showScore();
}

function moveTo(position) {
  quizState.position = position;
  showQuestion();
}

// Where the quiz goes on: the first question that is not answered right, or question 1 if all are.
function moveToOpenQuestion() {
  moveTo(Math.max(0, selectQuestions().findIndex((question) => !isAnsweredRight(question))));
}

quizElement("quiz-lesson").innerHTML = `<option value="all">all lessons</option>${[...new Set(QUIZ.map((question) => question.lesson))].sort().map(
  (lesson) => `<option value="${lesson}">lesson ${lesson}</option>`).join("")}`;
quizElement("quiz-lesson").addEventListener("change", (event) => {
  quizState.lesson = event.target.value;
  moveToOpenQuestion();
});
quizElement("quiz-form").addEventListener("submit", checkAnswer);
quizElement("quiz-previous").addEventListener("click", () => moveTo(quizState.position - 1));
quizElement("quiz-next").addEventListener("click", () => moveTo(quizState.position + 1));
quizElement("quiz-reset").addEventListener("click", () => {
  quizState.answers = {};
  storeAnswers();
  moveTo(0);
});
moveToOpenQuestion();
