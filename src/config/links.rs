//! Settings of redirects, short links and static files.

use std::path::PathBuf;

/// Where visitors may be sent, and what is served beside the routes.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct LinksConfig {
    /// `DefaultRedirect`: where a visitor goes whose destination is refused, missing or cannot be
    /// looked up. Default none: they get the error.
    pub default_redirect: Option<String>,
    /// `RedirectHosts`: hosts that `rdr` and `xrdr` lead to without a signature; `.example.com` also
    /// means every host below it. Default: `Domains`.
    pub redirect_hosts: Vec<String>,
    /// `Domains`: hosts of this site; a short link to one of them would come back to us.
    pub domains: Vec<String>,
    /// `AllowPrivateTargets`: links may lead to loopback, private and link-local hosts. Default off.
    pub private_targets: bool,
    /// `StaticDirectory`: the folder below `/tr/vN/pub/`. Default none: only the built-in pages.
    pub static_directory: Option<PathBuf>,
}
