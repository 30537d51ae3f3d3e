//! Finding the name of the user in requests and answers.
