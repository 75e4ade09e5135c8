//! In front of `from_underlay`: what can not be a peer's tunnel packet is dropped before it costs an skb.
//! It only drops what `from_underlay` would, by the same names.

use weft_common::header::Bytes;
use weft_common::tunnel;
use weft_common::verdict::DropReason;

use crate::maps;

/// The program.
#[inline(always)]
pub fn run<B: Bytes>(frame: &B) -> Result<(), DropReason> {
    let Some(tunnel) = tunnel::open(frame, maps::config().port as u16)? else { return Ok(()) };
    if maps::peer_at(tunnel.src).is_none() {
        return Err(DropReason::UnknownPeer);
    }
    Ok(())
}
