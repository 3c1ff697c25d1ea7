//! Pruning: what rows no longer say, or no longer are, once they are old enough.
//!
//! The configuration becomes a list of jobs, in order: log lines, what is older than the retention,
//! then the rules of the store. Each job is planned (rows by portion) and, unless the run is dry,
//! done portion after portion. A job that fails does not keep the next from being done. In a dry run
//! each job is asked for what those before it would leave, so no row counts for a rule that would not
//! find it any more.

use chrono::{DateTime, TimeDelta, Utc};

use crate::backends::{Job, Portion, PruneError, PruneKey, Pruner};
use crate::config::{PruneAction, PruneConfig, PruneRule};

/// What a run tells while it goes on.
#[derive(Debug)]
pub enum Step<'r> {
    /// A job and the rows it finds, in so many portions.
    Found(&'r Job, u64, usize),
    /// One portion of a job is begun; its place from 1, and of how many.
    Begun(&'r Job, &'r Portion, usize, usize),
    /// So much of the portion is left, in parts of the store's own kind.
    Waiting(u64),
    /// The portion is done.
    Done,
    /// The job is not done, or not whole.
    Failed(&'r Job, &'r PruneError),
    /// No portion is begun any more, because as many rows were changed as a run may.
    Enough(u64),
}

/// What a run did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Summary {
    /// Rows that were changed; in a dry run, that would be.
    pub rows: u64,
    /// Jobs that were not done.
    pub failures: usize,
}

/// The jobs of one store at the moment `now`; `tables` are those whose rows have an age.
pub fn jobs(
    config: &PruneConfig,
    rules: &[PruneRule],
    tables: &[String],
    key: &PruneKey,
    logs_only: bool,
    now: DateTime<Utc>,
) -> Vec<Job> {
    let mut jobs = Vec::new();
    let mut add = |why: String, table: &str, age, flags, action| {
        // An age beyond the calendar is no age.
        let before = TimeDelta::from_std(age).ok().and_then(|age| now.checked_sub_signed(age));
        jobs.extend(before.map(|before| Job {
            why,
            table: table.to_owned(),
            before,
            not_before: config.skip_before,
            spared_flags: flags,
            action,
            key: key.clone(),
        }));
    };
    if let Some(age) = config.logs_age_max {
        add("PruneLogsTTL".to_owned(), "logs", age, 0, PruneAction::Delete);
    }
    if logs_only || config.logs_only {
        return jobs;
    }
    if let Some(days) = config.retention_days {
        let age = std::time::Duration::from_secs(u64::from(days) * 24 * 3600);
        for table in tables {
            add("DataRetentionDays".to_owned(), table, age, 0, PruneAction::Delete);
        }
    }
    for (index, rule) in rules.iter().enumerate() {
        let why = format!("Prune[{index}]");
        add(why, &rule.table, rule.age_max, rule.spared_flags, rule.action.clone());
    }
    jobs
}

/// Does `jobs` in order, or with `dry_run` only looks, and tells each step.
pub async fn prune(
    pruner: &dyn Pruner,
    jobs: &[Job],
    dry_run: bool,
    rows_max: Option<u64>,
    tell: &mut (dyn FnMut(Step<'_>) + Send),
) -> Summary {
    let mut run = Run {
        pruner,
        is_dry: dry_run,
        rows_max,
        tell,
        supposed: Vec::new(),
        summary: Summary::default(),
    };
    for job in jobs {
        let ended = run.one(job).await;
        // What derives from a table is touched only when the table itself was pruned.
        let followers = if ended == Ended::Done { pruner.followers(job) } else { Vec::new() };
        let mut enough = ended == Ended::Enough;
        for follower in &followers {
            enough |= run.one(follower).await == Ended::Enough;
            if enough {
                break;
            }
        }
        if enough {
            break;
        }
    }
    run.summary
}

/// How a job ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ended {
    Done,
    /// It was told why.
    Failed,
    /// The run may change no more rows.
    Enough,
}

/// A run, and how far it is.
struct Run<'r> {
    pruner: &'r dyn Pruner,
    is_dry: bool,
    rows_max: Option<u64>,
    tell: &'r mut (dyn FnMut(Step<'_>) + Send),
    /// Jobs that a dry run supposes to be done.
    supposed: Vec<Job>,
    summary: Summary,
}

impl Run<'_> {
    async fn one(&mut self, job: &Job) -> Ended {
        let portions = match self.pruner.portions(job, &self.supposed).await {
            Ok(portions) => portions,
            Err(error) => return self.failed(job, &error),
        };
        let rows = portions.iter().map(|portion| portion.rows).sum();
        (self.tell)(Step::Found(job, rows, portions.len()));
        if self.is_dry {
            self.summary.rows += rows;
            if rows > 0 {
                self.supposed.push(job.clone());
            }
            return Ended::Done;
        }
        for (index, portion) in portions.iter().enumerate() {
            if self.rows_max.is_some_and(|rows_max| self.summary.rows >= rows_max) {
                (self.tell)(Step::Enough(self.summary.rows));
                return Ended::Enough;
            }
            (self.tell)(Step::Begun(job, portion, index + 1, portions.len()));
            let tell = &mut *self.tell;
            let mut waiting = |left| tell(Step::Waiting(left));
            if let Err(error) = self.pruner.apply(job, portion, &mut waiting).await {
                return self.failed(job, &error);
            }
            self.summary.rows += portion.rows;
            (self.tell)(Step::Done);
        }
        Ended::Done
    }

    fn failed(&mut self, job: &Job, error: &PruneError) -> Ended {
        self.summary.failures += 1;
        (self.tell)(Step::Failed(job, error));
        Ended::Failed
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;
    use std::time::Duration;

    use async_trait::async_trait;

    use super::*;

    const NOW: i64 = 1_800_000_000;

    fn now() -> DateTime<Utc> {
        DateTime::from_timestamp(NOW, 0).unwrap()
    }

    /// Two portions of ten rows in every table but `broken`.
    #[derive(Default)]
    struct Double(Mutex<Vec<String>>);

    #[async_trait]
    impl Pruner for Double {
        fn tables(&self) -> Vec<String> {
            tables()
        }

        async fn portions(&self, job: &Job, after: &[Job]) -> Result<Vec<Portion>, PruneError> {
            if after.iter().any(|done| done.table == job.table) {
                return Ok(Vec::new());
            }
            if job.table == "broken" {
                return Err(PruneError::Unfit("no such table".to_owned()));
            }
            let portion = |name: &str| Portion { name: name.to_owned(), rows: 10 };
            Ok(vec![portion("1"), portion("2")])
        }

        async fn apply(
            &self,
            job: &Job,
            portion: &Portion,
            waiting: &mut (dyn FnMut(u64) + Send),
        ) -> Result<(), PruneError> {
            waiting(1);
            self.0.lock().unwrap().push(format!("{}/{}", job.table, portion.name));
            Ok(())
        }

        fn followers(&self, job: &Job) -> Vec<Job> {
            if matches!(&*job.table, "events" | "broken") {
                vec![Job { table: "ips".to_owned(), ..job.clone() }]
            } else {
                Vec::new()
            }
        }
    }

    fn rule(table: &str) -> PruneRule {
        PruneRule {
            table: table.to_owned(),
            age_max: Duration::from_secs(60),
            spared_flags: 4,
            action: PruneAction::Delete,
        }
    }

    fn tables() -> Vec<String> {
        vec!["events".to_owned(), "logs".to_owned()]
    }

    fn key() -> PruneKey {
        PruneKey([7; 32])
    }

    fn config() -> PruneConfig {
        PruneConfig { retention_days: Some(1), ..PruneConfig::default() }
    }

    #[test]
    fn jobs_are_logs_then_retention_then_rules() {
        let found = jobs(&config(), &[rule("events")], &tables(), &key(), false, now());
        let seen: Vec<(&str, &str, i64)> = found
            .iter()
            .map(|job| (&*job.why, &*job.table, NOW - job.before.timestamp()))
            .collect();
        let day = 86_400;
        assert_eq!(
            seen,
            [
                ("PruneLogsTTL", "logs", 30 * day),
                ("DataRetentionDays", "events", day),
                ("DataRetentionDays", "logs", day),
                ("Prune[0]", "events", 60),
            ]
        );
        assert_eq!(found[3].spared_flags, 4);
        let logs = jobs(&config(), &[rule("events")], &tables(), &key(), true, now());
        assert_eq!(logs.len(), 1);
        let quiet = PruneConfig { logs_age_max: None, ..PruneConfig::default() };
        assert_eq!(jobs(&quiet, &[], &tables(), &key(), false, now()), []);
    }

    async fn run(
        rules: &[PruneRule],
        dry_run: bool,
        rows_max: Option<u64>,
    ) -> (Summary, Vec<String>) {
        let quiet = PruneConfig { logs_age_max: None, ..PruneConfig::default() };
        let jobs = jobs(&quiet, rules, &[], &key(), false, now());
        let pruner = Double::default();
        let summary = prune(&pruner, &jobs, dry_run, rows_max, &mut |_| {}).await;
        (summary, pruner.0.into_inner().unwrap())
    }

    #[tokio::test]
    async fn a_job_that_cannot_be_done_does_not_keep_the_next_from_it() {
        let (summary, done) = run(&[rule("broken"), rule("events")], false, None).await;
        assert_eq!(summary, Summary { rows: 40, failures: 1 });
        assert_eq!(done, ["events/1", "events/2", "ips/1", "ips/2"]);
    }

    #[tokio::test]
    async fn a_dry_run_counts_and_changes_nothing() {
        let (summary, done) = run(&[rule("logs")], true, None).await;
        assert_eq!((summary, done), (Summary { rows: 20, failures: 0 }, Vec::new()));
    }

    #[tokio::test]
    async fn no_portion_is_begun_after_as_many_rows_as_a_run_may_change() {
        let (summary, done) = run(&[rule("logs"), rule("events")], false, Some(15)).await;
        assert_eq!(summary, Summary { rows: 20, failures: 0 });
        assert_eq!(done, ["logs/1", "logs/2"]);
    }
}
