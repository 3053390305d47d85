//! Answering over HTTP, as far as Prometheus needs it: one request, one answer, and the connection is closed.

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::{Ipv4Addr, TcpListener, TcpStream},
    thread,
    time::{Duration, Instant},
};

use metrics_exporter_prometheus::PrometheusHandle;

use crate::Result;

/// More than any request here has.
const LONGEST_REQUEST: u64 = 16 << 10;

pub(crate) fn listen(port: u16) -> Result<TcpListener> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port))?;
    // So that it ends without a last request.
    listener.set_nonblocking(true)?;
    Ok(listener)
}

/// Answers until the time is over.
pub(crate) fn until(end: Instant, listener: &TcpListener, figures: &PrometheusHandle) {
    while Instant::now() < end {
        match listener.accept() {
            // Who hangs up early isn't worth a word.
            Ok((stream, _)) => drop(answer(stream, figures)),
            Err(_) => thread::sleep(Duration::from_millis(10)),
        }
        // Histograms keep what was recorded apart until somebody looks, or this is called.
        figures.run_upkeep();
    }
}

fn answer(stream: TcpStream, figures: &PrometheusHandle) -> std::io::Result<()> {
    stream.set_nonblocking(false)?;
    stream.set_read_timeout(Some(Duration::from_secs(1)))?;
    let mut lines = BufReader::new(stream.try_clone()?.take(LONGEST_REQUEST)).lines();
    let request = lines.next().transpose()?.unwrap_or_default();
    // The headers, up to the empty line behind them.
    for header in lines {
        if header?.is_empty() {
            break;
        }
    }
    let (status, body) = match request.split(' ').collect::<Vec<_>>()[..] {
        ["GET", "/metrics", _] => ("200 OK", figures.render()),
        ["GET", ..] => ("404 Not Found", "there is only /metrics\n".to_owned()),
        _ => ("405 Method Not Allowed", "only GET\n".to_owned()),
    };
    let head = format!(
        "HTTP/1.1 {status}\r\nContent-Type: text/plain; version=0.0.4; charset=utf-8\r\nContent-Length: {}\r\nConnection: \
         close\r\n\r\n",
        body.len()
    );
    let mut stream = stream;
    stream.write_all(head.as_bytes())?;
    stream.write_all(body.as_bytes())
}
