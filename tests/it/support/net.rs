//! Ports and loopback addresses that nobody else on this machine uses, so that tests may run side by side, in one
//! process or in many.
//!
//! Each process takes a block of ports below the ephemeral range by keeping its first port bound; the number of the
//! block is also the second byte of its loopback addresses.

use std::net::{IpAddr, Ipv4Addr, TcpListener, UdpSocket};
use std::sync::Mutex;

const FIRST: u16 = 20_000;
const BLOCK: u16 = 60;
const BLOCKS: u16 = 200;

/// A TCP port that was free a moment ago, never given twice by this process.
pub fn port() -> u16 {
    let mut taken = TAKEN.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    loop {
        let port = taken.next_port();
        if TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)).is_ok() {
            return port;
        }
    }
}

/// A loopback address (not 127.0.x.x) that nothing else uses.
pub fn address() -> Ipv4Addr {
    TAKEN.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).next_address()
}

static TAKEN: Mutex<Taken> = Mutex::new(Taken { blocks: Vec::new(), ports: 0, addresses: 0 });

struct Taken {
    /// The numbers of our blocks; the listeners keep other processes out.
    blocks: Vec<(u16, TcpListener)>,
    /// Ports given of the newest block.
    ports: u16,
    addresses: u16,
}

impl Taken {
    fn next_port(&mut self) -> u16 {
        self.ports += 1;
        if self.blocks.is_empty() || self.ports == BLOCK {
            self.take_block();
            self.ports = 1;
        }
        FIRST + self.blocks.last().map_or(0, |(block, _)| *block) * BLOCK + self.ports
    }

    fn next_address(&mut self) -> Ipv4Addr {
        if self.blocks.is_empty() {
            self.take_block();
        }
        self.addresses += 1;
        let [high, low] = self.addresses.to_be_bytes();
        Ipv4Addr::new(127, 20 + u8::try_from(self.blocks[0].0).expect("BLOCKS fits a byte"), high, low)
    }

    fn take_block(&mut self) {
        let free = (0..BLOCKS)
            .find_map(|block| Some((block, TcpListener::bind((Ipv4Addr::LOCALHOST, FIRST + block * BLOCK)).ok()?)));
        self.blocks.push(free.expect("a free block of ports"));
    }
}

/// An address of this machine that is not loopback (nothing is sent to find it). The API server takes no others as
/// endpoints.
pub fn outside() -> Option<IpAddr> {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).ok()?;
    socket.connect((Ipv4Addr::new(198, 51, 100, 1), 9)).ok()?;
    socket.local_addr().ok().map(|address| address.ip()).filter(|ip| !ip.is_loopback() && !ip.is_unspecified())
}
