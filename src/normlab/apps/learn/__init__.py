"""The teaching path in the terminal: lessons, predictions, quiz, exercises that are measured."""
