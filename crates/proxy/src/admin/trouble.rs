//! The health answer of an instance that could not get ready: why.

use std::net::SocketAddr;

use axum::Router;
use axum::http::StatusCode;
use tokio::net::TcpListener;

use super::{BOUNDS, serving};

/// The port of health checks where no configuration has been read that names another: what `sipedge plan` writes.
pub(crate) const USUAL_PORT: u16 = 8080;

/// Answers every page at `address` with 503 and the reason, until it is dropped. Where the address cannot be had, it answers nobody: the
/// log has the reason in any case.
pub(crate) async fn serve_trouble(address: SocketAddr, reason: &str) {
    let listener = match TcpListener::bind(address).await {
        Ok(listener) => listener,
        Err(error) => {
            tracing::warn!(%address, %error, "no health answer");
            return std::future::pending().await;
        }
    };
    let text = format!("not ready: {reason}\n");
    let pages = Router::new().fallback(move || async move { (StatusCode::SERVICE_UNAVAILABLE, text) });
    serving::answer(&listener, BOUNDS, |_| pages.clone()).await;
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpStream;

    use super::*;

    #[tokio::test]
    async fn every_page_says_why() {
        let free = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
        let ask = async {
            let mut stream = loop {
                match TcpStream::connect(free).await {
                    Ok(stream) => break stream,
                    Err(_) => tokio::task::yield_now().await,
                }
            };
            stream.write_all(b"GET /readyz HTTP/1.0\r\n\r\n").await.unwrap();
            let mut answer = String::new();
            stream.read_to_string(&mut answer).await.unwrap();
            answer
        };
        let answer = tokio::select! {
            answer = ask => answer,
            () = serve_trouble(free, "no user-data") => panic!("it has ended"),
        };
        assert!(answer.contains(" 503 ") && answer.ends_with("not ready: no user-data\n"), "{answer}");
    }
}
