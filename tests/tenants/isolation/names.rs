//! Who there is, what each calls its things, and where these really are: the rules that the gateway
//! must keep, written a second time.

use cosgate::emulator::{Emulator, EmulatorConfig};
use cosgate::secret::Secret;

use crate::support::{self, ACCOUNT, ACME, BUCKET, GLOBEX, Gateway, World};

/// A second bucket, in another region.
pub const FAR: &str = "far-1250000000";
/// The folders of all that share a bucket begin with it; no answer may hold it.
pub const ROOTS: &str = "v4ult";
/// What anyone may read, and no tenant write.
pub const PUBLIC: [&str; 3] = ["public/a", "public/b/1", "public/p+q"];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Who {
    Acme,
    Globex,
}

/// What a client may name as a bucket.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Bucket {
    /// A virtual bucket in another region.
    Away,
    /// A virtual bucket.
    Box,
    /// A folder of the shared bucket.
    Photos,
    /// A folder of it that is read by all.
    Public,
    /// The shared bucket's own name, which nobody was told.
    Real,
}

/// How a key begins.
#[derive(Clone, Copy, Debug)]
pub enum Folder {
    Bare,
    /// The folder of `photos` that is the caller's.
    Own,
    /// The neighbour's.
    Theirs,
    /// The caller's without its `/`: what it begins is not all the caller's.
    Beside,
    Public,
    /// The neighbour's virtual bucket, as it is called in the real one.
    Root,
    /// The neighbour's folder by way of `..`.
    Up,
}

/// A key: relative names are the same for both tenants, so that they meet.
#[derive(Clone, Copy, Debug)]
pub struct Name {
    pub folder: Folder,
    pub leaf: usize,
}

/// Ends of keys. `OWN` and `THEIRS` become the marks of the keys of the caller and of the neighbour.
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

    /// Stands in every object and its metadata, and in no request but an upload.
    pub fn body_mark(self) -> &'static str {
        match self {
            Self::Acme => "b0dy-alder",
            Self::Globex => "b0dy-birch",
        }
    }

    /// Stands in some keys.
    pub fn key_mark(self) -> &'static str {
        match self {
            Self::Acme => "k3y-alder",
            Self::Globex => "k3y-birch",
        }
    }

    /// One name is the beginning of the other.
    fn folder(self) -> &'static str {
        match self {
            Self::Acme => "acme/",
            Self::Globex => "acmes/",
        }
    }

    /// A `+` that is read as a space, or an escape that is read twice, makes one of the other.
    fn root(self, bucket: Bucket) -> &'static str {
        match (self, bucket) {
            (Self::Acme, Bucket::Box) => "v4ult (1)/中+/",
            (Self::Globex, Bucket::Box) => "v4ult (1)/中 /",
            (Self::Acme, Bucket::Away) => "v4ult%41&amp;/",
            (Self::Globex, Bucket::Away) => "v4ultA&/",
            _ => "",
        }
    }

    /// The real bucket and key of what this tenant calls `key`.
    pub fn real(self, bucket: Bucket, key: &str) -> (&'static str, String) {
        let real = if bucket == Bucket::Away { FAR } else { BUCKET };
        (real, format!("{}{key}", self.root(bucket)))
    }

    /// Whether a name in a real bucket, or a prefix of a listing there, is within what this tenant sees.
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

    /// Whether `prefix` is an ancestor of what this tenant may list of `bucket`.
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

    /// Whether this tenant's listings of `bucket` show what is below this prefix, or its objects have this key.
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

/// Both tenants in front of one COS, spoken to in `signature`. Without the `second_fence` the key that COS
/// gets may do anything, so that ours stands alone.
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
