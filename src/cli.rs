//! The command line.
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::process::ExitCode;

/// Runs the program.
///
/// # Errors
/// What went wrong, for a person.
pub fn run<E>(_args: impl Iterator<Item = OsString>, _env: &E) -> anyhow::Result<ExitCode>
where
    for<'a> &'a E: IntoIterator,
{
    let _: BTreeMap<String, String> = BTreeMap::new();
    unimplemented!()
}
