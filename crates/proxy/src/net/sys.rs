//! UDP sockets in batches: `recvmmsg`, `sendmmsg` and `SO_MEMINFO`, for which std and nix have no call that allocates nothing.

use std::cell::UnsafeCell;
use std::io;
use std::mem::{self, MaybeUninit};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::ptr::{self, NonNull};
use std::slice;

use nix::sys::socket::{
    self, AddressFamily, SockFlag, SockProtocol, SockType, SockaddrStorage, bind, setsockopt, sockopt,
};

/// Datagrams per system call. Larger batches gain nothing measurable and make a shard's other work wait.
pub(super) const BATCH: usize = 64;

/// Longest UDP payload, in bytes: the length field of a UDP header has 16 bits (RFC 768).
const MAX_DATAGRAM: usize = 65_535;

/// Receive buffer asked of the kernel, in bytes: 4 MiB hold about 2,000 INVITEs of 1 KB (the kernel counts its own overhead as well)
/// while a shard is held up for a moment. The kernel's default of 208 KiB holds about 90.
const RECEIVE_BUFFER: usize = 4 << 20;

/// A bound UDP socket that never blocks.
#[derive(Debug)]
pub(super) struct Udp {
    fd: OwnedFd,
    local: SocketAddr,
}

impl Udp {
    /// Binds `address`. With `shared`, other sockets of this user may bind it as well, and the kernel spreads flows over them.
    pub(super) fn bind(address: SocketAddr, shared: bool) -> io::Result<Self> {
        let family = if address.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        let fd = socket::socket(family, SockType::Datagram, flags, SockProtocol::Udp)?;
        if shared {
            setsockopt(&fd, sockopt::ReusePort, &true)?;
        }
        if address.is_ipv6() {
            setsockopt(&fd, sockopt::Ipv6V6Only, &true)?;
        }
        // Beyond net.core.rmem_max only with CAP_NET_ADMIN; what came of it is read back and is a metric.
        if setsockopt(&fd, sockopt::RcvBufForce, &RECEIVE_BUFFER).is_err() {
            setsockopt(&fd, sockopt::RcvBuf, &RECEIVE_BUFFER)?;
        }
        bind(fd.as_raw_fd(), &SockaddrStorage::from(address))?;
        Ok(Self { fd, local: address })
    }

    /// The address that it was bound to.
    pub(super) fn local(&self) -> SocketAddr {
        self.local
    }

    /// Receive buffer that the kernel granted, in bytes, its own bookkeeping included (socket(7): twice what was asked).
    pub(super) fn receive_buffer(&self) -> u64 {
        socket::getsockopt(&self.fd, sockopt::RcvBuf).map_or(0, |bytes| bytes as u64)
    }

    /// Datagrams that the kernel has dropped on this socket, mostly since the receive buffer was full. Wraps at 2³².
    pub(super) fn drops(&self) -> u32 {
        let mut values = [0u32; MEMINFO_VALUES];
        let mut length = mem::size_of_val(&values) as libc::socklen_t;
        // SAFETY: the pointer and the length describe `values`, which outlives the call; the kernel writes at most `length` bytes,
        // and any bit pattern is a u32.
        let result = unsafe {
            libc::getsockopt(
                self.fd.as_raw_fd(),
                libc::SOL_SOCKET,
                libc::SO_MEMINFO,
                values.as_mut_ptr().cast(),
                &raw mut length,
            )
        };
        if result == 0 { values[MEMINFO_DROPS] } else { 0 }
    }

    /// Sends up to [`BATCH`] datagrams and returns how many the kernel took; fewer means that the next one met an error, which the
    /// next call reports.
    pub(super) fn send<'a>(&self, datagrams: impl Iterator<Item = (SocketAddr, &'a [u8])>) -> io::Result<usize> {
        // Only what is used is written: the whole arrays are 13 KiB, most of what sending one datagram would cost.
        let mut names = [const { MaybeUninit::<Name>::uninit() }; BATCH];
        let mut slices = [const { MaybeUninit::<libc::iovec>::uninit() }; BATCH];
        let mut headers = [const { MaybeUninit::<libc::mmsghdr>::uninit() }; BATCH];
        let mut count = 0;
        let places = names.iter_mut().zip(slices.iter_mut().zip(headers.iter_mut()));
        for ((name, (slice, header)), (to, bytes)) in places.zip(datagrams) {
            let mut message = empty_header();
            message.msg_hdr.msg_namelen = Name::write(name, to);
            message.msg_hdr.msg_name = name.as_mut_ptr().cast();
            message.msg_hdr.msg_iov =
                slice.write(libc::iovec { iov_base: bytes.as_ptr().cast_mut().cast(), iov_len: bytes.len() });
            message.msg_hdr.msg_iovlen = 1;
            header.write(message);
            count += 1;
        }
        // SAFETY: the first `count` headers are written, and point to names, slices and message bytes that live until the call returns;
        // the kernel only reads the bytes (the iovec's pointer is mutable since recvmsg uses the same type), and of a name as much as
        // its length says; `count` is at most the array's length.
        let sent = unsafe {
            libc::sendmmsg(self.fd.as_raw_fd(), headers.as_mut_ptr().cast(), count as _, libc::MSG_NOSIGNAL as _)
        };
        usize::try_from(sent).map_err(|_| io::Error::last_os_error())
    }
}

impl AsFd for Udp {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// Buffers for one `recvmmsg`, allocated once. The 4 MiB are virtual memory until datagrams that long arrive.
///
/// The headers that name the buffers are written once, and of those that the kernel has used what it has changed: all 64 anew for each
/// call were a third of what receiving one datagram cost.
pub(super) struct Received {
    /// [`BATCH`] places of [`MAX_DATAGRAM`] bytes. A pointer and no box: `slices` points there, too.
    bytes: NonNull<u8>,
    names: Box<[UnsafeCell<Name>; BATCH]>,
    /// Never read or written but by the kernel, through `headers`.
    _slices: Box<[UnsafeCell<libc::iovec>; BATCH]>,
    headers: Box<[libc::mmsghdr; BATCH]>,
    count: usize,
}

// SAFETY: the pointers lead to memory that this value alone owns.
unsafe impl Send for Received {}

impl Received {
    /// Nothing received yet.
    pub(super) fn new() -> Self {
        let bytes = NonNull::from(Box::leak(vec![0_u8; BATCH * MAX_DATAGRAM].into_boxed_slice())).cast::<u8>();
        let names = Box::new([const { UnsafeCell::new(Name::EMPTY) }; BATCH]);
        let slices = Box::new([const { UnsafeCell::new(EMPTY_SLICE) }; BATCH]);
        let mut headers = Box::new([empty_header(); BATCH]);
        for (index, (header, (name, slice))) in headers.iter_mut().zip(names.iter().zip(slices.iter())).enumerate() {
            // SAFETY: `index` is below BATCH, so the place lies within the allocation; the slice is nobody else's yet.
            unsafe {
                let place = bytes.as_ptr().add(index * MAX_DATAGRAM);
                *slice.get() = libc::iovec { iov_base: place.cast(), iov_len: MAX_DATAGRAM };
            }
            header.msg_hdr.msg_name = name.get().cast();
            header.msg_hdr.msg_namelen = NAME_LENGTH;
            header.msg_hdr.msg_iov = slice.get();
            header.msg_hdr.msg_iovlen = 1;
        }
        Self { bytes, names, _slices: slices, headers, count: 0 }
    }

    /// Takes what waits on `socket`, up to [`BATCH`] datagrams, and returns how many. 0: nothing waits.
    pub(super) fn receive(&mut self, socket: &Udp) -> io::Result<usize> {
        // What the kernel has changed (recvmsg(2)).
        for header in self.headers.iter_mut().take(std::mem::take(&mut self.count)) {
            header.msg_hdr.msg_namelen = NAME_LENGTH;
            header.msg_hdr.msg_flags = 0;
        }
        // SAFETY: each header points to its own name, slice and 65,535 bytes, none of them shared and all alive as long as `self`,
        // which is borrowed mutably: nobody reads them meanwhile. The kernel writes within the lengths given; a null timeout is allowed.
        let received = unsafe {
            libc::recvmmsg(
                socket.fd.as_raw_fd(),
                self.headers.as_mut_ptr(),
                BATCH as _,
                libc::MSG_DONTWAIT as _,
                ptr::null_mut(),
            )
        };
        let Ok(count) = usize::try_from(received) else {
            let error = io::Error::last_os_error();
            return if error.kind() == io::ErrorKind::WouldBlock { Ok(0) } else { Err(error) };
        };
        self.count = count.min(BATCH);
        Ok(self.count)
    }

    /// The datagrams of the last [`Received::receive`], in order; `None` stands for one that was cut off or has no source address.
    pub(super) fn datagrams(&self) -> impl Iterator<Item = Option<(SocketAddr, &[u8])>> {
        let filled = self.headers.iter().zip(self.names.iter()).take(self.count);
        filled.enumerate().map(|(index, (header, name))| {
            // SAFETY: the kernel writes names in `receive` alone, which borrows `self` mutably.
            let source = unsafe { &*name.get() }.get().filter(|_| header.msg_hdr.msg_flags & libc::MSG_TRUNC == 0)?;
            let length = (header.msg_len as usize).min(MAX_DATAGRAM);
            // SAFETY: the place is one of BATCH within the allocation, which was made of initialised bytes and lives as long as `self`;
            // the kernel writes there in `receive` alone, which borrows `self` mutably.
            let bytes = unsafe { slice::from_raw_parts(self.bytes.as_ptr().add(index * MAX_DATAGRAM), length) };
            Some((source, bytes))
        })
    }
}

impl Drop for Received {
    fn drop(&mut self) {
        let bytes = ptr::slice_from_raw_parts_mut(self.bytes.as_ptr(), BATCH * MAX_DATAGRAM);
        // SAFETY: it was a box of this length, nothing else frees it, and the kernel uses it within `receive` alone.
        drop(unsafe { Box::from_raw(bytes) });
    }
}

/// Values of `SO_MEMINFO` (linux/sock_diag.h, SK_MEMINFO_VARS), and the place of the drops among them.
const MEMINFO_VALUES: usize = 9;
const MEMINFO_DROPS: usize = libc::SK_MEMINFO_DROPS as usize;

const NAME_LENGTH: libc::socklen_t = mem::size_of::<libc::sockaddr_storage>() as libc::socklen_t;

const EMPTY_SLICE: libc::iovec = libc::iovec { iov_base: ptr::null_mut(), iov_len: 0 };

fn empty_header() -> libc::mmsghdr {
    // SAFETY: all fields are integers and pointers, for which zero is a valid value. (They are not listed, since musl has padding fields.)
    unsafe { mem::zeroed() }
}

/// A socket address as the kernel has it.
#[derive(Clone, Copy)]
struct Name(libc::sockaddr_storage);

impl Name {
    // SAFETY: sockaddr_storage is made of integers, for which zero is a valid value.
    const EMPTY: Self = Self(unsafe { mem::zeroed() });

    /// Writes as much of a name as the address takes, and returns how much that is.
    fn write(place: &mut MaybeUninit<Self>, address: SocketAddr) -> libc::socklen_t {
        match address {
            SocketAddr::V4(v4) => {
                let name = libc::sockaddr_in {
                    sin_family: libc::AF_INET as libc::sa_family_t,
                    sin_port: v4.port().to_be(),
                    sin_addr: libc::in_addr { s_addr: u32::from_ne_bytes(v4.ip().octets()) },
                    sin_zero: [0; 8],
                };
                // SAFETY: sockaddr_storage is at least as large as, and as strictly aligned as, every socket address (POSIX).
                unsafe { place.as_mut_ptr().cast::<libc::sockaddr_in>().write(name) };
                mem::size_of_val(&name) as libc::socklen_t
            }
            SocketAddr::V6(v6) => {
                let name = libc::sockaddr_in6 {
                    sin6_family: libc::AF_INET6 as libc::sa_family_t,
                    sin6_port: v6.port().to_be(),
                    sin6_flowinfo: v6.flowinfo(),
                    sin6_addr: libc::in6_addr { s6_addr: v6.ip().octets() },
                    sin6_scope_id: v6.scope_id(),
                };
                // SAFETY: as above.
                unsafe { place.as_mut_ptr().cast::<libc::sockaddr_in6>().write(name) };
                mem::size_of_val(&name) as libc::socklen_t
            }
        }
    }

    fn get(&self) -> Option<SocketAddr> {
        match libc::c_int::from(self.0.ss_family) {
            libc::AF_INET => {
                // SAFETY: the family says that the kernel wrote a sockaddr_in; size and alignment as above.
                let name = unsafe { (&raw const self.0).cast::<libc::sockaddr_in>().read() };
                let ip = Ipv4Addr::from(name.sin_addr.s_addr.to_ne_bytes());
                Some(SocketAddr::V4(SocketAddrV4::new(ip, u16::from_be(name.sin_port))))
            }
            libc::AF_INET6 => {
                // SAFETY: the family says that the kernel wrote a sockaddr_in6; size and alignment as above.
                let name = unsafe { (&raw const self.0).cast::<libc::sockaddr_in6>().read() };
                let ip = Ipv6Addr::from(name.sin6_addr.s6_addr);
                let port = u16::from_be(name.sin6_port);
                Some(SocketAddr::V6(SocketAddrV6::new(ip, port, name.sin6_flowinfo, name.sin6_scope_id)))
            }
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::IpAddr;
    use std::time::{Duration, Instant};

    fn receive_all(socket: &Udp, expected: usize) -> Vec<(SocketAddr, Vec<u8>)> {
        let mut received = Received::new();
        let mut all = Vec::new();
        let deadline = Instant::now() + Duration::from_secs(5);
        while all.len() < expected {
            assert!(Instant::now() < deadline, "{} of {expected} datagrams arrived", all.len());
            received.receive(socket).unwrap();
            all.extend(
                received.datagrams().map(|datagram| datagram.unwrap()).map(|(from, bytes)| (from, bytes.to_vec())),
            );
        }
        all
    }

    fn pair(ip: &str) -> (Udp, SocketAddr, std::net::UdpSocket) {
        let peer = std::net::UdpSocket::bind((ip.parse::<IpAddr>().unwrap(), 0)).unwrap();
        let port = std::net::UdpSocket::bind((ip.parse::<IpAddr>().unwrap(), 0)).unwrap().local_addr().unwrap().port();
        let address = SocketAddr::new(ip.parse().unwrap(), port);
        (Udp::bind(address, true).unwrap(), address, peer)
    }

    #[test]
    fn empty_and_longest_datagrams_arrive_whole_and_in_order() {
        let (socket, address, peer) = pair("127.0.0.1");
        let longest = vec![7u8; 65_507];
        for bytes in [&b""[..], b"x", &longest] {
            peer.send_to(bytes, address).unwrap();
        }
        let all = receive_all(&socket, 3);
        assert_eq!(all.iter().map(|(_, bytes)| bytes.len()).collect::<Vec<_>>(), [0, 1, 65_507]);
        assert!(all.iter().all(|(from, _)| *from == peer.local_addr().unwrap()));
        assert_eq!(Received::new().receive(&socket).unwrap(), 0, "nothing waits any more");
    }

    #[test]
    fn a_batch_is_sent_to_each_destination_and_from_the_bound_address() {
        for ip in ["127.0.0.1", "::1"] {
            let Ok(_) = std::net::UdpSocket::bind((ip.parse::<IpAddr>().unwrap(), 0)) else { continue };
            let (socket, address, peer) = pair(ip);
            peer.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
            let to = peer.local_addr().unwrap();
            let texts: Vec<String> = (0..100).map(|number| format!("message {number}")).collect();
            let batch: Vec<_> = texts.iter().map(|text| (to, text.as_bytes())).collect();
            assert_eq!(socket.send(batch.iter().copied()).unwrap(), BATCH, "no more than a batch at a time");
            assert_eq!(socket.send(batch[BATCH..].iter().copied()).unwrap(), 100 - BATCH);
            let mut buffer = [0; 64];
            for text in &texts {
                let (length, from) = peer.recv_from(&mut buffer).unwrap();
                assert_eq!((&buffer[..length], from), (text.as_bytes(), address));
            }
        }
    }

    #[test]
    fn drops_are_counted_when_the_receive_buffer_is_full() {
        let (socket, address, peer) = pair("127.0.0.1");
        assert!(socket.receive_buffer() >= 128 << 10, "{} bytes", socket.receive_buffer());
        assert_eq!(socket.drops(), 0);
        let bytes = vec![0; 60_000];
        let fill = socket.receive_buffer() / 60_000 + 10;
        for _ in 0..fill {
            peer.send_to(&bytes, address).unwrap();
        }
        assert!(socket.drops() > 0);
    }
}
