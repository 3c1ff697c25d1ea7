//! What is added to an event and, last, what is taken away: the ordered list.
//!
//! Enrichment never fails: a missing answer is an absent field. Privacy stands last, so that nothing
//! added before it can slip past (invariant: what privacy removes never reaches the disk).

pub(super) mod agent;
mod bots;
pub(super) mod campaign;
mod fingerprint;
pub(super) mod geo;
pub(super) mod identity;
pub(super) mod privacy;
mod sources;
pub(super) mod url;

pub(super) use bots::PREFETCH;
