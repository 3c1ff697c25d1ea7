//! The derived views, against data small enough to count by hand.
