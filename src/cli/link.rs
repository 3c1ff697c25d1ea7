//! `tracker link sign`: a redirect to a host that is not configured, signed with the installation's
//! key. Needs the key's file, not a running server.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::bail;
use clap::{Args, Subcommand};

use super::{keys, load};
use crate::links::Policy;

/// Arguments of `tracker link`.
#[derive(Debug, Clone, Args)]
pub(super) struct LinkArguments {
    #[command(subcommand)]
    action: Action,
    /// Configuration file.
    #[arg(long, default_value = "config.json", global = true)]
    config: PathBuf,
}

#[derive(Debug, Clone, Subcommand)]
enum Action {
    /// Print the address that leads to URL although its host is not configured.
    Sign {
        /// Where it leads.
        url: String,
        /// What stands before the path; default: https and the first of Domains.
        #[arg(long)]
        base: Option<String>,
    },
}

/// Prints the signed address.
pub(super) fn run(
    arguments: &LinkArguments,
    env: &BTreeMap<String, String>,
) -> anyhow::Result<ExitCode> {
    let config = load(&arguments.config, env)?.config;
    let Action::Sign { url, base } = &arguments.action;
    let api_version = config.server.http.api_version;
    if let Err(refused) = Policy::new(&config.links, api_version).redirect(url, true) {
        bail!("{url} {refused}");
    }
    let keys = keys(&config)?;
    let first = || config.links.domains.first().map(|domain| format!("https://{domain}"));
    let base = base.clone().or_else(first).unwrap_or_default();
    let query = url::form_urlencoded::Serializer::new(String::new())
        .append_pair("url", url)
        .append_pair("sig", &keys.sign_redirect(url))
        .finish();
    println!("{}/tr/v{api_version}/rdr/?{query}", base.trim_end_matches('/'));
    Ok(ExitCode::SUCCESS)
}
