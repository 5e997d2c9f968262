//! `eval breach`: probabilities of breaking a threshold.
