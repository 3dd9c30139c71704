//! Namespaces, processes and descriptors: the system calls of the lab.

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, IoSlice, IoSliceMut};
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::os::unix::net::UnixStream;

use nix::errno::Errno;
use nix::libc;
use nix::sched::{CloneFlags, setns, unshare};
use nix::sys::prctl::set_pdeathsig;
use nix::sys::signal::Signal;
use nix::sys::socket::{
    AddressFamily, ControlMessage, ControlMessageOwned, MsgFlags, SockFlag, SockType, SockaddrStorage, bind, recvmsg,
    sendmsg, setsockopt, socket, sockopt,
};
use nix::unistd::{Pid, getppid};

/// Most descriptors in one message: a network namespace and its user namespace.
const MAX_DESCRIPTORS: usize = 2;

/// Runs `work` with this thread inside `namespace` and comes back to `home`.
///
/// `work` must not await: other tasks of the thread would run in the wrong namespace. Not coming back would do the same for good,
/// so that ends the process, and with it the lab.
pub(super) fn inside<T>(namespace: BorrowedFd<'_>, home: BorrowedFd<'_>, work: impl FnOnce() -> T) -> io::Result<T> {
    setns(namespace, CloneFlags::CLONE_NEWNET)?;
    let result = work();
    if let Err(error) = setns(home, CloneFlags::CLONE_NEWNET) {
        tracing::error!(%error, "cannot return to the vpc namespace");
        std::process::abort();
    }
    Ok(result)
}

/// Creates a network namespace, runs `work` inside it, and comes back to `home`.
pub(super) fn create_namespace<T>(home: BorrowedFd<'_>, work: impl FnOnce() -> T) -> io::Result<(OwnedFd, T)> {
    unshare(CloneFlags::CLONE_NEWNET)?;
    let opened = current_namespace();
    let result = work();
    if let Err(error) = setns(home, CloneFlags::CLONE_NEWNET) {
        tracing::error!(%error, "cannot return to the vpc namespace");
        std::process::abort();
    }
    Ok((opened?, result))
}

/// The network namespace of this thread.
pub(super) fn current_namespace() -> io::Result<OwnedFd> {
    Ok(File::open("/proc/thread-self/ns/net")?.into())
}

/// Has the kernel kill the command's process when this thread ends, however that happens.
pub(super) fn die_with_parent(command: &mut tokio::process::Command) {
    let parent = Pid::this();
    let hook = move || {
        set_pdeathsig(Signal::SIGKILL)?;
        // The parent may have ended before the call above.
        if getppid() == parent { Ok(()) } else { Err(Errno::ESRCH.into()) }
    };
    // SAFETY: the hook runs between fork and exec and makes two system calls, prctl and getppid; it neither allocates nor locks.
    unsafe { command.pre_exec(hook) };
}

/// A network interface of this name in the namespace of this thread, whose frames are read from and written to the descriptor. It is there as
/// long as the descriptor is open somewhere.
pub(super) fn tap(name: &str) -> io::Result<OwnedFd> {
    let device = File::options().read(true).write(true).open("/dev/net/tun")?;
    // SAFETY: an ifreq is a name and a union of plain numbers and addresses, for all of which zeros are a value.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    // The last place stays zero: the kernel wants the name to end.
    for (place, byte) in request.ifr_name.iter_mut().take(libc::IFNAMSIZ - 1).zip(name.bytes()) {
        *place = libc::c_char::from_ne_bytes([byte]);
    }
    request.ifr_ifru.ifru_flags = libc::c_short::try_from(libc::IFF_TAP | libc::IFF_NO_PI).unwrap_or_default();
    // SAFETY: TUNSETIFF reads and writes one ifreq (tun(4)), and `request` is one that outlives the call.
    let result = unsafe { libc::ioctl(device.as_raw_fd(), libc::TUNSETIFF, &raw mut request) };
    if result == 0 { Ok(device.into()) } else { Err(io::Error::last_os_error()) }
}

/// A UDP socket of `port` on every address, for what arrives at one interface, which may send to all who are there.
pub(super) fn broadcast_socket(interface: &str, port: u16) -> io::Result<UdpSocket> {
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let bound = socket(AddressFamily::Inet, SockType::Datagram, flags, None)?;
    setsockopt(&bound, sockopt::Broadcast, &true)?;
    setsockopt(&bound, sockopt::BindToDevice, &OsString::from(interface))?;
    bind(bound.as_raw_fd(), &SockaddrStorage::from(SocketAddr::from((Ipv4Addr::UNSPECIFIED, port))))?;
    Ok(bound.into())
}

/// Sends bytes and descriptors in one message.
pub(super) fn send_with_descriptors(
    socket: BorrowedFd<'_>,
    bytes: &[u8],
    descriptors: &[OwnedFd],
) -> io::Result<usize> {
    let raw: Vec<i32> = descriptors.iter().map(AsRawFd::as_raw_fd).collect();
    let rights = [ControlMessage::ScmRights(&raw)];
    let control: &[ControlMessage<'_>] = if raw.is_empty() { &[] } else { &rights };
    Ok(sendmsg::<()>(socket.as_raw_fd(), &[IoSlice::new(bytes)], control, MsgFlags::MSG_NOSIGNAL, None)?)
}

/// Receives bytes into `buffer`, and the descriptors that came with them. 0 bytes: the other side has closed.
pub(super) fn receive_with_descriptors(socket: &UnixStream, buffer: &mut [u8]) -> io::Result<(usize, Vec<OwnedFd>)> {
    let mut control = nix::cmsg_space!([i32; MAX_DESCRIPTORS]);
    let mut slices = [IoSliceMut::new(buffer)];
    let message = recvmsg::<()>(socket.as_raw_fd(), &mut slices, Some(&mut control), MsgFlags::MSG_CMSG_CLOEXEC)?;
    let mut descriptors = Vec::new();
    for item in message.cmsgs()? {
        if let ControlMessageOwned::ScmRights(raw) = item {
            // SAFETY: the kernel has just installed these descriptors in this process, and nothing else knows their numbers.
            descriptors.extend(raw.into_iter().map(|fd| unsafe { OwnedFd::from_raw_fd(fd) }));
        }
    }
    Ok((message.bytes, descriptors))
}

/// A TCP socket bound to `address` in the namespace of this thread.
pub(super) fn tcp_socket(address: SocketAddr) -> io::Result<OwnedFd> {
    let family = if address.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
    let bound = socket(family, SockType::Stream, SockFlag::SOCK_CLOEXEC, None)?;
    // As servers do: a connection of an earlier one that still lingers keeps nobody from listening.
    setsockopt(&bound, sockopt::ReuseAddr, &true)?;
    bind(bound.as_raw_fd(), &SockaddrStorage::from(address))?;
    Ok(bound)
}
