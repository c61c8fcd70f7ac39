//! Readiness of sockets: epoll, level-triggered, which costs the fewest system calls a request.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use rustix::buffer::spare_capacity;
use rustix::event::Timespec;
use rustix::event::epoll;

pub(crate) use rustix::event::epoll::EventFlags as Ready;

/// Events that one wait returns at most.
const EVENTS: usize = 512;

/// A set of sockets, each under a number of its own.
pub(crate) struct Poll {
    epoll: OwnedFd,
    events: Vec<epoll::Event>,
}

impl Poll {
    pub(crate) fn new() -> io::Result<Self> {
        Ok(Self {
            epoll: epoll::create(epoll::CreateFlags::CLOEXEC)?,
            events: Vec::with_capacity(EVENTS),
        })
    }

    pub(crate) fn add(&self, socket: impl AsFd, number: usize, ready: Ready) -> io::Result<()> {
        let data = epoll::EventData::new_u64(number as u64);
        Ok(epoll::add(&self.epoll, socket, data, ready)?)
    }

    pub(crate) fn modify(&self, socket: impl AsFd, number: usize, ready: Ready) -> io::Result<()> {
        let data = epoll::EventData::new_u64(number as u64);
        Ok(epoll::modify(&self.epoll, socket, data, ready)?)
    }

    /// The numbers of the sockets that are ready, after `limit` at most.
    pub(crate) fn wait(&mut self, limit: Duration) -> io::Result<impl Iterator<Item = usize>> {
        let limit = Timespec::try_from(limit).map_err(io::Error::other)?;
        self.events.clear();
        match epoll::wait(&self.epoll, spare_capacity(&mut self.events), Some(&limit)) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        let number = |event: &epoll::Event| {
            let data = event.data;
            usize::try_from(data.u64()).expect("a number that was a usize")
        };
        Ok(self.events.iter().map(number))
    }
}
