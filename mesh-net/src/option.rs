use std::{
    ffi::c_int,
    fmt, io,
    os::fd::{AsFd, AsRawFd},
};

/// An option of an accepting socket, as the system numbers it.
///
/// # Envoy
/// `core.v3.SocketOption`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct SocketOption {
    /// For people.
    pub description: Box<str>,
    /// The level, as `SOL_SOCKET`.
    pub level: i32,
    /// The option, as `SO_KEEPALIVE`.
    pub name: i32,
    /// What it is set to.
    pub value: OptionValue,
    /// When it is set.
    pub state: SocketState,
    /// The sockets that it is for; all of them when absent. Envoy: `type`, `ip_version`.
    pub family: Option<OptionFamily>,
}

/// What a socket option is set to.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum OptionValue {
    /// A number. Envoy: `int_value`.
    Int(i32),
    /// Bytes. Envoy: `buf_value`.
    Bytes(Box<[u8]>),
}

/// When a socket option is set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum SocketState {
    /// Before the socket has its address. `STATE_PREBIND`.
    Prebind,
    /// Before it listens. `STATE_BOUND`.
    Bound,
    /// When it listens. `STATE_LISTENING`.
    Listening,
}

/// The sockets that an option is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum OptionFamily {
    /// Those of IPv4 addresses.
    V4,
    /// Those of IPv6 addresses.
    V6,
}

impl SocketOption {
    /// A number, for all sockets.
    #[must_use]
    pub fn int(description: &str, level: i32, name: i32, value: i32, state: SocketState) -> Self {
        Self {
            description: description.into(),
            level,
            name,
            value: OptionValue::Int(value),
            state,
            family: None,
        }
    }

    fn set(&self, socket: &impl AsFd) -> io::Result<()> {
        let number;
        let bytes: &[u8] = match &self.value {
            OptionValue::Int(value) => {
                number = value.to_ne_bytes();
                &number
            }
            OptionValue::Bytes(bytes) => bytes,
        };
        set(socket, self.level, self.name, bytes).map_err(|error| {
            let reason = format!("cannot set the socket option {self}: {error}");
            io::Error::new(error.kind(), reason)
        })
    }
}

impl fmt::Display for SocketOption {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} of level {}", self.name, self.level)?;
        if self.description.is_empty() {
            return Ok(());
        }
        write!(f, " ({})", self.description)
    }
}

/// Sets those of `options` whose time it is. `v6` is `None` for a socket that has no such address.
pub(crate) fn apply(
    socket: &impl AsFd,
    options: &[SocketOption],
    state: SocketState,
    v6: Option<bool>,
) -> io::Result<()> {
    let fits = |option: &&SocketOption| {
        option.state == state
            && match option.family {
                None => true,
                Some(OptionFamily::V4) => v6 == Some(false),
                Some(OptionFamily::V6) => v6 == Some(true),
            }
    };
    options
        .iter()
        .filter(fits)
        .try_for_each(|option| option.set(socket))
}

#[expect(unsafe_code, reason = "no safe wrapper sets options by number")]
fn set(socket: &impl AsFd, level: c_int, name: c_int, value: &[u8]) -> io::Result<()> {
    let length = libc::socklen_t::try_from(value.len()).map_err(io::Error::other)?;
    // SAFETY: the descriptor is open for as long as it is borrowed, and the kernel reads `length` bytes of
    // `value`, which has so many, and keeps no pointer to them.
    let result = unsafe {
        libc::setsockopt(
            socket.as_fd().as_raw_fd(),
            level,
            name,
            value.as_ptr().cast(),
            length,
        )
    };
    match result {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}
