//! Cases that share what takes long to set up: one test runs them, and a failure names each that failed.

use std::panic::AssertUnwindSafe;

use futures::FutureExt;
use futures::future::LocalBoxFuture;

/// The name of a case, and what it does.
pub type Case<'a> = (&'a str, LocalBoxFuture<'a, ()>);

/// Runs each case, whether those before it failed or not.
///
/// # Panics
/// If a case did; the message names all that did.
pub async fn each<'a>(cases: impl IntoIterator<Item = Case<'a>>) {
    let mut failed = Vec::new();
    for (name, case) in cases {
        eprintln!("case {name}");
        failed.extend(failure(name, case).await);
    }
    check(&failed);
}

/// The same for cases that mostly wait: all at once.
///
/// # Panics
/// As [`each`].
pub async fn at_once<'a>(cases: impl IntoIterator<Item = Case<'a>>) {
    let all = cases.into_iter().map(|(name, case)| failure(name, case));
    let ended = futures::future::join_all(all).await;
    check(&ended.into_iter().flatten().collect::<Vec<_>>());
}

/// The name of the case if it failed.
async fn failure<'a>(name: &'a str, case: LocalBoxFuture<'a, ()>) -> Option<&'a str> {
    let ended = AssertUnwindSafe(case).catch_unwind().await;
    if ended.is_err() {
        eprintln!("case {name} failed");
    }
    ended.is_err().then_some(name)
}

fn check(failed: &[&str]) {
    assert!(failed.is_empty(), "failed: {}", failed.join(", "));
}

#[tokio::test]
#[should_panic(expected = "failed: first, third")]
async fn every_case_runs_and_each_that_failed_is_named() {
    let ran = std::cell::Cell::new(0);
    let case = async |fails: bool| {
        ran.set(ran.get() + 1);
        assert!(!fails);
    };
    let cases = [
        ("first", case(true).boxed_local()),
        ("second", case(false).boxed_local()),
        ("third", case(true).boxed_local()),
    ];
    let ended = AssertUnwindSafe(each(cases)).catch_unwind().await;
    assert_eq!(ran.get(), 3);
    std::panic::resume_unwind(ended.unwrap_err());
}
