//! The tenants, the names that each uses, and the real keys: the rules of the gateway, implemented a second time.

use cosgate::emulator::{Emulator, EmulatorConfig};
use cosgate::secret::Secret;

use crate::support::{self, ACCOUNT, ACME, BUCKET, GLOBEX, Gateway, World};

/// A second bucket, in another region.
pub const FAR: &str = "far-1250000000";
/// The prefix of all folders in the shared bucket. No response may contain it.
pub const ROOTS: &str = "v4ult";
/// The folder that all may read, and no tenant may write.
pub const PUBLIC: [&str; 3] = ["public/a", "public/b/1", "public/p+q"];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Who {
    Acme,
    Globex,
}

/// The buckets that a client may name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Bucket {
    /// A virtual bucket in another region.
    Away,
    /// A virtual bucket.
    Box,
    /// A folder of the shared bucket.
    Photos,
    /// A folder of it that all may read.
    Public,
    /// The shared bucket's own name, which no tenant knows.
    Real,
}

/// The start of a key.
#[derive(Clone, Copy, Debug)]
pub enum Folder {
    Bare,
    /// The caller's folder of `photos`.
    Own,
    /// The neighbour's folder.
    Theirs,
    /// The caller's folder without its `/`: as a prefix, it covers other keys too.
    Beside,
    Public,
    /// The neighbour's virtual bucket, by its name in the real bucket.
    Root,
    /// The neighbour's folder through `..`.
    Up,
}

/// A key. Both tenants use the same relative names, so that their keys collide.
#[derive(Clone, Copy, Debug)]
pub struct Name {
    pub folder: Folder,
    pub leaf: usize,
}

/// Ends of keys. `OWN` and `THEIRS` are replaced with the marks of the caller's and the neighbour's keys.
pub const LEAVES: [&str; 13] = [
    "a", "b/1", "b/2", "OWN", "p+q", "b c", "p%20q", "x&<>'\"", "ü/中", "b//d", "THEIRS", "..",
    "%2e%2e/a",
];

impl Who {
    pub fn other(self) -> Self {
        match self {
            Self::Acme => Self::Globex,
            Self::Globex => Self::Acme,
        }
    }

    pub fn key(self) -> (&'static str, &'static str) {
        match self {
            Self::Acme => ACME,
            Self::Globex => GLOBEX,
        }
    }

    /// The mark in every object and its metadata. Only uploads send it.
    pub fn body_mark(self) -> &'static str {
        match self {
            Self::Acme => "b0dy-alder",
            Self::Globex => "b0dy-birch",
        }
    }

    /// The mark in some keys.
    pub fn key_mark(self) -> &'static str {
        match self {
            Self::Acme => "k3y-alder",
            Self::Globex => "k3y-birch",
        }
    }

    /// One mark is the beginning of the other.
    fn folder(self) -> &'static str {
        match self {
            Self::Acme => "acme/",
            Self::Globex => "acmes/",
        }
    }

    /// Decoding a `+` as a space, or decoding twice, turns one mark into the other.
    fn root(self, bucket: Bucket) -> &'static str {
        match (self, bucket) {
            (Self::Acme, Bucket::Box) => "v4ult (1)/中+/",
            (Self::Globex, Bucket::Box) => "v4ult (1)/中 /",
            (Self::Acme, Bucket::Away) => "v4ult%41&amp;/",
            (Self::Globex, Bucket::Away) => "v4ultA&/",
            _ => "",
        }
    }

    /// The real bucket and key of this tenant's `key`.
    pub fn real(self, bucket: Bucket, key: &str) -> (&'static str, String) {
        let real = if bucket == Bucket::Away { FAR } else { BUCKET };
        (real, format!("{}{key}", self.root(bucket)))
    }

    /// Whether a real name or listing prefix lies within what this tenant may see.
    pub fn sees(self, bucket: &str, key: &str) -> bool {
        let own = match bucket {
            BUCKET => vec![self.folder(), self.root(Bucket::Box), "public/"],
            FAR => vec![self.root(Bucket::Away)],
            _ => Vec::new(),
        };
        own.iter().any(|start| key.starts_with(start))
    }

    pub fn name(self, name: Name) -> String {
        let folder = match name.folder {
            Folder::Bare => String::new(),
            Folder::Own => self.folder().to_owned(),
            Folder::Theirs => self.other().folder().to_owned(),
            Folder::Beside => self.folder().trim_end_matches('/').to_owned(),
            Folder::Public => "public/".to_owned(),
            Folder::Root => self.other().root(Bucket::Box).to_owned(),
            Folder::Up => format!("../{}", self.other().folder()),
        };
        let leaf = LEAVES[name.leaf]
            .replace("OWN", self.key_mark())
            .replace("THEIRS", self.other().key_mark());
        format!("{folder}{leaf}")
    }

    /// Whether `prefix` is an ancestor of what this tenant may list in `bucket`.
    pub fn is_above(self, bucket: Bucket, prefix: &str) -> bool {
        let folder = match bucket {
            Bucket::Photos => self.folder(),
            Bucket::Public => "public/",
            Bucket::Away | Bucket::Box | Bucket::Real => return false,
        };
        folder != prefix && folder.starts_with(prefix)
    }

    /// The common prefix that an ancestor of the tenant's folder shows.
    pub fn way(self, bucket: Bucket) -> &'static str {
        if bucket == Bucket::Public {
            return "public/";
        }
        self.folder()
    }

    /// The origin of this tenant's pages.
    pub fn site(self) -> &'static str {
        match self {
            Self::Acme => "https://alder.example",
            Self::Globex => "https://birch.example",
        }
    }

    /// Whether this tenant's grant of `bucket` has a rule for its pages: GET, PUT and POST.
    pub fn has_rule(self, bucket: Bucket) -> bool {
        bucket == Bucket::Box || (bucket == Bucket::Away && self == Self::Acme)
    }

    /// Whether this tenant may list below this prefix of `bucket`, or read objects with this key.
    pub fn covers(self, bucket: Bucket, key: &str) -> bool {
        match bucket {
            Bucket::Away | Bucket::Box => true,
            Bucket::Photos => key.starts_with(self.folder()),
            Bucket::Public => key.starts_with("public/"),
            Bucket::Real => false,
        }
    }

    pub fn reads(self, bucket: Bucket, key: &str) -> bool {
        self.covers(bucket, key) && !climbs(key)
    }

    pub fn writes(self, bucket: Bucket, key: &str) -> bool {
        bucket != Bucket::Public && self.reads(bucket, key)
    }
}

impl Bucket {
    pub fn alias(self) -> &'static str {
        match self {
            Self::Away => "away",
            Self::Box => "box",
            Self::Photos => "photos",
            Self::Public => "public",
            Self::Real => BUCKET,
        }
    }
}

/// Whether a key has a segment `..`, encoded or not.
pub fn climbs(key: &str) -> bool {
    key.replace("%2e", ".").split('/').any(|part| part == "..")
}

/// Both tenants in front of one COS, with this `signature`. Without the `second_fence`, the key for COS may do
/// everything, so that only cosgate limits the tenants.
pub fn world(signature: &str, second_fence: bool) -> World {
    let emulator = Emulator::start(EmulatorConfig {
        keys: vec![(ACCOUNT.0.to_owned(), Secret::new(ACCOUNT.1))],
        buckets: vec![
            (BUCKET.to_owned(), "ap-guangzhou".to_owned()),
            (FAR.to_owned(), "ap-beijing".to_owned()),
        ],
        ..EmulatorConfig::default()
    })
    .unwrap();
    let mut toml = support::toml(emulator.cos_addr(), emulator.sts_addr(), "")
        .replacen(
            "[upstream]",
            &format!("[upstream]\nsignature = \"{signature}\""),
            1,
        )
        .replacen("globex/*", "acmes/*", 1)
        .replacen("[\"public/*\"]", "[\"public/*\"]\nshared = true", 1);
    if !second_fence {
        toml = toml.replacen("\"federation\"", "\"static\"", 1);
        toml = toml.replacen("duration = \"30m\"", "", 1);
    }
    for who in [Who::Acme, Who::Globex] {
        let tenant = if who == Who::Acme { "acme" } else { "globex" };
        let all = "actions = [\"read\", \"write\", \"list\"]";
        for (bucket, region, keys) in [
            (
                Bucket::Box,
                "ap-guangzhou",
                format!("root = \"{}\"\n{all}", who.root(Bucket::Box)),
            ),
            (
                Bucket::Away,
                "ap-beijing",
                format!("root = \"{}\"\n{all}", who.root(Bucket::Away)),
            ),
            (
                Bucket::Public,
                "ap-guangzhou",
                "prefixes = [\"public/*\"]\nshared = true\nactions = [\"read\", \"list\"]"
                    .to_owned(),
            ),
        ] {
            let (alias, real) = (bucket.alias(), who.real(bucket, "").0);
            toml += &format!(
                "\n[[tenants.{tenant}.grants]]\nname = \"{alias}\"\nbucket = \"{real}\"\nregion = \"{region}\"\n{keys}\n"
            );
            if who.has_rule(bucket) {
                toml += &format!(
                    "[[tenants.{tenant}.grants.cors]]\norigins = [\"{}\"]\nmethods = [\"GET\", \"PUT\", \"POST\"]\n",
                    who.site()
                );
            }
        }
    }
    let gateway = Gateway::start(&toml);
    World { gateway, emulator }
}
