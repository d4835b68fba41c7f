"""`careflow doctor`: what a set-up looks like from outside, what is wrong with it, and how to put that right."""
