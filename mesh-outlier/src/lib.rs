//! Outlier detection: ejecting bad endpoints.
