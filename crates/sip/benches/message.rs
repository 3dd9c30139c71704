//! What it takes to read a message and to write it with a proxy's changes: `cargo bench -p sipedge-sip`.

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use sipedge_sip::message::{Edits, HeaderName, Layout, Message};
use sipedge_sip::via::ViaParameters;

/// An INVITE as a carrier sends it: 20 header lines, 1.2 KB with its SDP.
const INVITE: &str = include_str!("invite.sip");

fn message(criterion: &mut Criterion) {
    let bytes = INVITE.replace('\n', "\r\n").into_bytes();
    let mut group = criterion.benchmark_group("invite of 1.2 KB");
    group.throughput(Throughput::Bytes(bytes.len() as u64));
    let mut layout = Layout::default();
    group.bench_function("parse", |bencher| {
        bencher.iter(|| Message::read(black_box(&bytes), &mut layout).map(|message| message.body()));
    });
    let message = Message::read(&bytes, &mut layout).expect("an INVITE");
    group.bench_function("top via", |bencher| {
        bencher.iter(|| {
            let (via, element) = black_box(&message).top_via()?;
            Some((via.port, ViaParameters::of(element.text)))
        });
    });
    let (mut edits, mut out) = (Edits::default(), Vec::new());
    group.bench_function("five edits, written", |bencher| {
        bencher.iter(|| {
            edits.clear();
            out.clear();
            let message = black_box(&message);
            edits.insert(message.first_header(), |text| text.extend_from_slice(b"Via: SIP/2.0/UDP 192.0.2.1\r\n"));
            edits
                .insert(message.first_header(), |text| text.extend_from_slice(b"Record-Route: <sip:192.0.2.1;lr>\r\n"));
            if let Some(request) = message.request() {
                edits.replace(request.uri.span, |text| text.extend_from_slice(b"sip:+15551230001@198.51.100.1"));
            }
            if let Some(forwards) = message.header(HeaderName::MaxForwards) {
                edits.replace(forwards.span, |text| text.extend_from_slice(b"65"));
            }
            message.headers(HeaderName::PAssertedIdentity).for_each(|header| edits.remove(header.line));
            edits.write(message, &mut out);
            out.len()
        });
    });
    group.finish();
}

criterion_group!(benches, message);
criterion_main!(benches);
