//! A small shop whose log can be watched: figures in the text format of Prometheus, on a port of this machine.
//!
//! Services append orders and payments and read them as groups, one of them too slowly, while a thread answers whoever
//! asks for `/metrics`. The dashboard beside this file draws what it tells: import it into Grafana, and have Prometheus
//! scrape the address that is printed.

mod serve;
mod shop;

use std::{
    path::PathBuf,
    process::ExitCode,
    time::{Duration, Instant},
};

use clap::Parser;
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};
use tidelog::Log;

type Result<T, E = Box<dyn std::error::Error + Send + Sync>> = std::result::Result<T, E>;

/// Upper bounds of the histogram of syncs, in seconds: from memory to a slow disk.
const SYNC_BUCKETS: [f64; 12] = [0.0001, 0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.5, 2.0];

/// A small shop whose log can be watched by Prometheus and Grafana.
#[derive(Parser)]
struct Args {
    /// How long to run
    #[arg(long = "for", value_name = "SECONDS", default_value_t = 5)]
    seconds: u64,
    /// The port of 127.0.0.1 to answer at; 0 for any that is free
    #[arg(long, default_value_t = 0)]
    port: u16,
    /// Keep the log in this folder
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
}

fn main() -> ExitCode {
    let outcome = run(&Args::parse());
    outcome.inspect_err(|error| eprintln!("error: {error}")).map_or(ExitCode::FAILURE, |()| ExitCode::SUCCESS)
}

fn run(args: &Args) -> Result<()> {
    // Before the log is opened: it looks its figures up once.
    let figures = install_recorder()?;
    let (folder, _temporary) = match &args.data {
        Some(folder) => (folder.clone(), None),
        None => {
            let temporary = tempfile::tempdir()?;
            (temporary.path().to_owned(), Some(temporary))
        }
    };
    let options = Log::options().segment_bytes(256 << 10).metrics_interval(Duration::from_millis(200));
    let log = options.open(&folder)?;

    let server = serve::listen(args.port)?;
    let end = Instant::now() + Duration::from_secs(args.seconds);
    println!("http://{}/metrics, for {} seconds", server.server_addr(), args.seconds);
    shop::run(&log, end, || serve::until(end, &server, &figures))?;
    log.close()?;
    print_summary(&figures.render());
    Ok(())
}

/// Has everything that the program counts kept, for [`PrometheusHandle::render`].
fn install_recorder() -> Result<PrometheusHandle> {
    let syncs = Matcher::Full("tidelog_sync_duration_seconds".into());
    let recorder = PrometheusBuilder::new().set_buckets_for_metric(syncs, &SYNC_BUCKETS)?.build_recorder();
    let figures = recorder.handle();
    metrics::set_global_recorder(recorder)?;
    Ok(figures)
}

/// What a person wants to see of it.
fn print_summary(text: &str) {
    println!("\nIn the end, among others:");
    for name in ["tidelog_append_records_total", "tidelog_polled_records_total", "tidelog_group_lag_records"] {
        text.lines().filter(|line| line.starts_with(name)).for_each(|line| println!("  {line}"));
    }
}
