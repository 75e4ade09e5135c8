//! Connections that stay open for as long as they are allowed, and are cut as soon as they are not.

use std::net::SocketAddr;
use std::time::Duration;

use weft_tests::traffic::stream::{Cause, Stream};
use weft_tests::wait::holds_within;

use super::super::{Container, SOON};
use super::model::{Packet, Protocol, State};

/// Between whom, by which family and at which port. None of these comes and goes.
const ENDS: [(usize, usize, bool, u16); 6] = [
    (0, 4, false, 8000),
    (4, 0, true, 8001),
    (0, 2, false, 8002),
    (0, 5, true, 8003),
    (7, 5, false, 8004),
    (5, 2, true, 8000),
];
/// What is no longer allowed is dead within a second, also on a busy machine.
const CUT: Duration = Duration::from_secs(3);
/// Nobody gives up by himself.
const PATIENCE: Duration = Duration::from_secs(30);

#[derive(Default)]
pub(super) struct Lines {
    open: [Option<Stream>; ENDS.len()],
    /// How many were made, were there through a change, and were cut by one.
    pub(super) counts: [u64; 3],
}

impl Lines {
    /// Looks at all after these states, of which the last is in force, were or may have been. Says what was wrong.
    pub(super) fn look(&mut self, cast: &[Container], states: &[State]) -> Result<(), String> {
        let mixed = State::mixed(states);
        for (line, &(from, to, v6, port)) in self.open.iter_mut().zip(&ENDS) {
            let packet = Packet { from, to, v6, protocol: Protocol::Tcp, port };
            let passes = |state: &State| {
                let verdict = state.verdict(packet);
                verdict.out && verdict.into
            };
            let is_allowed = passes(states.last().expect("some state is in force"));
            if let Some(stream) = line.take() {
                let flows = || stream.flows_within(SOON) && deaths(&stream) == (None, None);
                if mixed.iter().all(passes) {
                    if !flows() {
                        return Err(format!("the connection {packet:?} stands still: {:?}", deaths(&stream)));
                    }
                    *line = Some(stream);
                    self.counts[1] += 1;
                } else if !is_allowed {
                    let cut = (Some(Cause::Reset), Some(Cause::Reset));
                    if !holds_within(CUT, || deaths(&stream) == cut) {
                        return Err(format!("the connection {packet:?} is not cut: {:?}", deaths(&stream)));
                    }
                    self.counts[2] += 1;
                }
                // Else it may have been cut in between, and another would pass again: that is not known.
            }
            if line.is_none() && is_allowed {
                let (client, server) = (&cast[from], &cast[to]);
                let at = SocketAddr::new(if v6 { server.v6 } else { server.v4 }, port);
                *line = Some(Stream::listen(&server.netns, at).connect_from(&client.netns, PATIENCE));
                self.counts[0] += 1;
            }
        }
        Ok(())
    }
}

fn deaths(stream: &Stream) -> (Option<Cause>, Option<Cause>) {
    (stream.client_death().map(|death| death.cause), stream.server_death().map(|death| death.cause))
}
