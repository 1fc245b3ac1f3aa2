//! `davitd check`: verifies the store against content, snapshots, bundles and
//! mounts while no daemon runs, and mends with `--repair`.

use std::{io::Write, process::ExitCode};

use davit_images::Images;
use davit_store::{Condition, Error, Result, Store};

use crate::{app, config::Config};

/// Verifies the root directory. The exit code is 0 when all is well (or was
/// mended), 1 when something is wrong.
pub(crate) fn run(config: &Config, repair: bool) -> Result<ExitCode> {
    if !config.root.is_dir() {
        return Err(Error::not_found(format!(
            "{} does not exist",
            config.root.display()
        )));
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .map_err(|error| Error::io("cannot start the async runtime", error))?;
    let problems = runtime.block_on(check(config, repair))?;
    let mut out = std::io::stdout().lock();
    let said = |error| Error::io("cannot write to stdout", error);
    for problem in &problems {
        writeln!(out, "{problem}").map_err(said)?;
    }
    let verdict = match (problems.is_empty(), repair) {
        (true, _) => "no problems found",
        (false, true) => "the problems above were mended",
        (false, false) => "run `davitd check --repair` to mend what can be mended",
    };
    writeln!(out, "{verdict}").map_err(said)?;
    Ok(if problems.is_empty() || repair {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

async fn check(config: &Config, repair: bool) -> Result<Vec<String>> {
    let opened = Store::open(config.root.join("store"), app::store_options(config))?;
    let mut problems = Vec::new();
    let mut of_images = app::images_config(config);
    if let Condition::Rebuilt { moved_to, reason } = &opened.condition {
        problems.push(format!(
            "store: was damaged ({reason}) and moved to {}",
            moved_to.display()
        ));
        of_images.store_was_lost = true;
    }
    let store = opened.store;
    problems.extend(
        store
            .verify()?
            .problems
            .into_iter()
            .map(|problem| format!("store: {problem}")),
    );
    let images = Images::open(of_images, store.clone()).await?;
    let found = images.check(repair).await?;
    problems.extend(
        found
            .into_iter()
            .map(|problem| format!("images: {problem}")),
    );
    let found = davit_engine::check(&app::engine_config(config)?, &store, &images, repair).await?;
    problems.extend(
        found
            .into_iter()
            .map(|problem| format!("containers: {problem}")),
    );
    store.close()?;
    Ok(problems)
}
