//! Local rate limiting as a tower layer.
