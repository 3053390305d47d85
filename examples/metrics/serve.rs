//! Answering who asks for the figures over HTTP.

use std::{
    io::Cursor,
    net::Ipv4Addr,
    time::{Duration, Instant},
};

use metrics_exporter_prometheus::PrometheusHandle;
use tiny_http::{Header, Response, Server};

use crate::Result;

/// The text format of Prometheus.
const CONTENT_TYPE: &str = "Content-Type: text/plain; version=0.0.4; charset=utf-8";

/// How long it waits for a request before it looks at the clock.
const PAUSE: Duration = Duration::from_millis(50);

pub(crate) fn listen(port: u16) -> Result<Server> {
    Server::http((Ipv4Addr::LOCALHOST, port))
}

/// Answers until the time is over.
pub(crate) fn until(end: Instant, server: &Server, figures: &PrometheusHandle) {
    while Instant::now() < end {
        if let Ok(Some(request)) = server.recv_timeout(PAUSE) {
            let response = match request.url() {
                "/metrics" => page(figures.render()),
                _ => Response::from_string("there is only /metrics\n").with_status_code(404),
            };
            // Who hangs up early isn't worth a word.
            let _ = request.respond(response);
        }
        // Histograms keep what was recorded apart until somebody looks, or this is called.
        figures.run_upkeep();
    }
}

fn page(text: String) -> Response<Cursor<Vec<u8>>> {
    let mut response = Response::from_string(text);
    if let Ok(content_type) = CONTENT_TYPE.parse::<Header>() {
        response.add_header(content_type);
    }
    response
}
