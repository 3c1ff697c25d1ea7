//! tracker: one program that lets an organisation own its user telemetry.
//!
//! A **fact** comes in, becomes a typed **event**, is enriched, stripped of what privacy forbids, and
//! appended to the **journal**; then the client is answered. For each sink a **shipper** reads the
//! journal, sorts events into **lanes**, freezes a **batch**, and writes it. The two halves meet only
//! on disk. `ARCHITECTURE.md` is the map; `tests/tidy.rs` executes its floors.
//!
//! Modules stand in floor order: each names only those above it in this list.

// floor 1: inputs, and where work may run
pub mod background;
pub mod clock;
pub mod config;
// floor 2: the fact, pure machines, what operators see, outgoing TLS
pub mod breaker;
pub mod event;
pub mod telemetry;
pub mod tls;
// floor 3: what is stored, where an address is, durable bytes
pub mod geo;
pub mod journal;
pub mod tables;
// floor 4: outside systems, and what they may lack
pub mod backends;
pub mod fresh;
// floor 5: the work
pub mod consent;
pub mod delivery;
pub mod intake;
pub mod links;
pub mod migrate;
pub mod prune;
// floor 6: inlets
pub mod http;
// floor 7: composition, and what speaks to a server from outside
pub mod app;
pub mod doctor;
pub mod import;
// floor 8: arguments
pub mod cli;
