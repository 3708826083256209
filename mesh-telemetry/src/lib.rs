//! Export of stats and access logs.
