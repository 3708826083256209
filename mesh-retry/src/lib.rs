//! Retries as a tower layer: conditions, back-off, budgets, replay, hedging, deadlines.
