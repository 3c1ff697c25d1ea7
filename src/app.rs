//! Composition: builds every part from the settings, starts and stops them in order.

use anyhow::bail;

use crate::config::Loaded;

/// Serves until told to stop.
///
/// # Errors
/// When a part cannot start.
pub fn serve(_loaded: Loaded) -> anyhow::Result<()> {
    bail!("not in this version yet: serving")
}
