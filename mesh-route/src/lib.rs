//! Which cluster a request goes to, and how it is rewritten on the way.
