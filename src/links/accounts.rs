//! Who may make short links: passwords are checked slowly, not too often, and never on a worker.
//!
//! Hashes are Argon2id. The Go tracker's unsalted SHA-1 still verifies and is replaced on the first
//! success. An account that does not exist costs the same time as a wrong password. Failures are
//! counted by account and by the network of the address; above a bound nothing is checked until the
//! minute is over, the right password included: that is the price for a bound that holds against
//! many addresses.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use argon2::Argon2;
use argon2::password_hash::phc::PasswordHash;
use argon2::password_hash::{PasswordHasher, PasswordVerifier};
use aws_lc_rs::{constant_time, digest};
use moka::sync::Cache;
use thiserror::Error;
use tokio::sync::Semaphore;

use super::base64;
use crate::backends::{Account, AccountChange, Store, StoreError};
use crate::clock::Clock;
use crate::event::UserId;

/// Failed checks of one account, and of one network, in [`WINDOW`].
pub const FAILURES_MAX: u32 = 20;
/// The time in which failures count.
pub const WINDOW: Duration = Duration::from_secs(60);
/// Accounts and networks whose failures are counted at a time.
const COUNTED_MAX: u64 = 50_000;
/// Hashes computed at a time; each takes 19 MiB and a core for tens of milliseconds.
const HASHES_MAX: usize = 2;
/// Bytes of a password; longer ones are refused before they are hashed.
const PASSWORD_BYTES_MAX: usize = 1024;

/// Why a caller is not let in: one variant for each reaction.
#[derive(Debug, Error)]
pub enum Denied {
    /// Name or password is wrong, or the account has expired.
    #[error("user or password is wrong")]
    Wrong,
    /// Too many failures.
    #[error("too many wrong passwords, try again in a minute")]
    TooOften,
    /// The accounts cannot be read now.
    #[error("accounts cannot be read now")]
    Unavailable,
}

/// Checks accounts. Shared by every connection.
pub struct Accounts {
    store: Option<Arc<dyn Store>>,
    clock: Arc<dyn Clock>,
    failures: Cache<Counted, Arc<AtomicU32>>,
    hashing: Semaphore,
}

#[derive(Clone, PartialEq, Eq, Hash)]
enum Counted {
    Account(UserId),
    Network(IpAddr),
}

impl Accounts {
    /// Over the accounts of `store`; without one there are none.
    pub fn new(store: Option<Arc<dyn Store>>, clock: Arc<dyn Clock>) -> Self {
        let failures = Cache::builder().max_capacity(COUNTED_MAX).time_to_live(WINDOW).build();
        Self { store, clock, failures, hashing: Semaphore::new(HASHES_MAX) }
    }

    /// The account `uid`, if `password` is its own. `network` is the caller's, as wide as one
    /// customer's.
    ///
    /// # Errors
    /// See [`Denied`].
    pub async fn check(
        &self,
        uid: UserId,
        password: String,
        network: IpAddr,
    ) -> Result<Account, Denied> {
        let counts = [Counted::Account(uid), Counted::Network(network)]
            .map(|counted| self.failures.get_with(counted, Arc::default));
        // Counted as a failure before it is known, so that many at once pass no bound.
        let before = counts.each_ref().map(|count| count.fetch_add(1, Ordering::Relaxed));
        let forgive = || {
            for count in &counts {
                count.fetch_sub(1, Ordering::Relaxed);
            }
        };
        if before.iter().any(|failures| *failures >= FAILURES_MAX) {
            forgive();
            return Err(Denied::TooOften);
        }
        let store = self.store.as_ref().ok_or(Denied::Wrong)?;
        let account = store.account(uid).await.map_err(|_: StoreError| {
            forgive();
            Denied::Unavailable
        })?;
        let stored = account.as_ref().map(|account| account.password_hash.clone());
        let _permit = self.hashing.acquire().await.map_err(|_| Denied::Unavailable)?;
        let checked = tokio::task::spawn_blocking(move || verify(&password, stored.as_deref()));
        let checked = checked.await.map_err(|_| Denied::Unavailable)?;
        match (checked, account) {
            (Checked::Right { upgraded }, Some(account)) => {
                forgive();
                if let Some(password_hash) = upgraded {
                    self.upgrade(&**store, &account, password_hash).await;
                }
                Ok(account)
            }
            _ => Err(Denied::Wrong),
        }
    }

    /// Replaces an old hash; if that fails, the next success tries again.
    async fn upgrade(&self, store: &dyn Store, account: &Account, password_hash: String) {
        let updated_at = self.clock.wall();
        let account = Account { password_hash, updated_at, ..account.clone() };
        match store.change_account(AccountChange::Put(account)).await {
            Ok(_) => tracing::info!("an account's SHA-1 hash was replaced by Argon2id"),
            Err(error) => tracing::warn!(%error, "an account's SHA-1 hash could not be replaced"),
        }
    }
}

enum Checked {
    Right { upgraded: Option<String> },
    Wrong,
}

/// Hash of a password of which nobody knows the text: what an unknown account is compared with.
const NOBODY: &str = "$argon2id$v=19$m=19456,t=2,p=1$bm9ib2R5bm9ib2R5bm8\
                      $AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";

fn verify(password: &str, stored: Option<&str>) -> Checked {
    if password.len() > PASSWORD_BYTES_MAX {
        return Checked::Wrong;
    }
    if let Some(sha1) = stored.and_then(sha1) {
        let found = digest::digest(&digest::SHA1_FOR_LEGACY_USE_ONLY, password.as_bytes());
        let same = constant_time::verify_slices_are_equal(found.as_ref(), &sha1).is_ok();
        // Hashed whether right or wrong: both take the same time.
        let upgraded = hash(password).ok();
        return if same { Checked::Right { upgraded } } else { Checked::Wrong };
    }
    let right = PasswordHash::new(stored.unwrap_or(NOBODY))
        .is_ok_and(|hash| Argon2::default().verify_password(password.as_bytes(), &hash).is_ok());
    if right && stored.is_some() { Checked::Right { upgraded: None } } else { Checked::Wrong }
}

/// Why a password cannot be kept.
#[derive(Debug, Error)]
pub enum HashError {
    /// Empty, or longer than anybody types.
    #[error("a password has 8 to {PASSWORD_BYTES_MAX} bytes")]
    Length,
    /// The system gives no random numbers.
    #[error("the password cannot be hashed")]
    Failed,
}

/// The Argon2id hash of a password, in PHC form. Blocks for tens of milliseconds.
///
/// # Errors
/// See [`HashError`].
pub fn hash_password(password: &str) -> Result<String, HashError> {
    if !(8..=PASSWORD_BYTES_MAX).contains(&password.len()) {
        return Err(HashError::Length);
    }
    hash(password)
}

fn hash(password: &str) -> Result<String, HashError> {
    let hashed = Argon2::default().hash_password(password.as_bytes());
    hashed.map(|hash| hash.to_string()).map_err(|_| HashError::Failed)
}

/// The 20 bytes of a SHA-1 in URL-safe base 64, as the Go tracker stored them.
fn sha1(text: &str) -> Option<[u8; 20]> {
    base64::decode(text.trim())?.try_into().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backends::memory::Memory;
    use crate::clock::SystemClock;

    const SHA1_OF_PASSWORD: &str = "W6ph5Mm5Pz8GgiULbPgzG37mj9g=";

    fn uid(number: u128) -> UserId {
        uuid::Uuid::from_u128(number).into()
    }

    async fn with(hash: &str) -> (Accounts, Arc<dyn Store>) {
        let store: Arc<dyn Store> = Memory::new();
        let account = Account {
            uid: uid(1),
            password_hash: hash.to_owned(),
            organisation: None,
            expires: None,
            updated_at: chrono::DateTime::default(),
        };
        store.change_account(AccountChange::Put(account)).await.unwrap();
        (Accounts::new(Some(Arc::clone(&store)), Arc::new(SystemClock)), store)
    }

    fn ip(last: u8) -> IpAddr {
        [198, 51, 100, last].into()
    }

    #[tokio::test]
    async fn the_right_password_opens_and_no_other() {
        let (accounts, _) = with(&hash_password("correct horse").unwrap()).await;
        let check = async |uid, password: &str| {
            accounts.check(uid, password.to_owned(), ip(1)).await.is_ok()
        };
        assert!(check(uid(1), "correct horse").await);
        assert!(!check(uid(1), "Correct horse").await);
        assert!(!check(uid(1), "").await);
        assert!(!check(uid(2), "correct horse").await);
        assert!(!check(uid(2), "nobody").await);
    }

    #[tokio::test]
    async fn an_old_hash_verifies_and_is_replaced() {
        let (accounts, store) = with(SHA1_OF_PASSWORD).await;
        assert!(accounts.check(uid(1), "passwort".to_owned(), ip(1)).await.is_err());
        let kept = store.account(uid(1)).await.unwrap().unwrap().password_hash;
        assert_eq!(kept, SHA1_OF_PASSWORD);
        accounts.check(uid(1), "password".to_owned(), ip(1)).await.unwrap();
        let kept = store.account(uid(1)).await.unwrap().unwrap().password_hash;
        assert!(kept.starts_with("$argon2id$"), "{kept}");
        accounts.check(uid(1), "password".to_owned(), ip(1)).await.unwrap();
    }

    #[tokio::test]
    async fn guessing_ends_by_account_and_by_address_and_success_costs_nothing() {
        let (accounts, _) = with(SHA1_OF_PASSWORD).await;
        let check = async |uid, password: &str, ip| match accounts
            .check(uid, password.to_owned(), ip)
            .await
        {
            Ok(_) => "in",
            Err(Denied::Wrong) => "wrong",
            Err(Denied::TooOften) => "often",
            Err(Denied::Unavailable) => "unavailable",
        };
        for _ in 0..2 {
            assert_eq!(check(uid(1), "password", ip(1)).await, "in");
        }
        // Without a store's account nothing is hashed twice; names differ, the address does not.
        for guess in 0..FAILURES_MAX {
            assert_eq!(check(uid(100 + u128::from(guess)), "x", ip(2)).await, "wrong");
        }
        assert_eq!(check(uid(1), "password", ip(2)).await, "often", "by address");
        assert_eq!(check(uid(1), "password", ip(1)).await, "in", "from another");
        for guess in 0..FAILURES_MAX {
            let from = ip(u8::try_from(10 + guess).unwrap());
            assert_eq!(check(uid(1), "x", from).await, "wrong");
        }
        assert_eq!(check(uid(1), "password", ip(1)).await, "often", "by account");
    }

    #[test]
    fn short_passwords_are_refused() {
        assert!(matches!(hash_password("1234567"), Err(HashError::Length)));
        assert_ne!(hash_password("12345678").unwrap(), hash_password("12345678").unwrap());
    }
}
