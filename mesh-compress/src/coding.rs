use std::fmt;

/// A content coding.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Coding {
    /// `gzip`.
    Gzip,
    /// `br`.
    Brotli,
    /// `zstd`.
    Zstd,
}

impl Coding {
    /// Its name in `accept-encoding` and `content-encoding`.
    #[must_use]
    pub const fn token(self) -> &'static str {
        match self {
            Self::Gzip => "gzip",
            Self::Brotli => "br",
            Self::Zstd => "zstd",
        }
    }
}

impl fmt::Display for Coding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.token())
    }
}

/// A coding, and how hard it tries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Compression {
    coding: Coding,
    level: u8,
}

impl Compression {
    /// gzip, from 1 (fast) to 9 (small); a level beyond counts as the nearest one. Envoy's default is
    /// zlib's, 6.
    #[must_use]
    pub const fn gzip(level: u8) -> Self {
        Self::new(Coding::Gzip, level, 1, 9)
    }

    /// Brotli, from 0 to 11. Envoy's default is 3.
    #[must_use]
    pub const fn brotli(level: u8) -> Self {
        Self::new(Coding::Brotli, level, 0, 11)
    }

    /// Zstandard, from 1 to 22. Envoy's default is 3.
    #[must_use]
    pub const fn zstd(level: u8) -> Self {
        Self::new(Coding::Zstd, level, 1, 22)
    }

    const fn new(coding: Coding, level: u8, least: u8, most: u8) -> Self {
        let level = if level < least {
            least
        } else if level > most {
            most
        } else {
            level
        };
        Self { coding, level }
    }

    /// The coding.
    #[must_use]
    pub const fn coding(self) -> Coding {
        self.coding
    }

    /// How hard it tries.
    #[must_use]
    pub const fn level(self) -> u8 {
        self.level
    }
}
