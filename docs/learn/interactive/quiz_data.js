// Written by scripts/docs/quiz_data.py from quiz.yaml.
const QUIZ = [];
