//! The operations of the tenants as plain data, so that a failing sequence shrinks to its essential steps.

use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use proptest::sample::select;

use super::names::{Bucket, Folder, LEAVES, Name, Who};

/// A whole run.
#[derive(Clone, Debug)]
pub struct Run {
    /// Whether the key for COS is limited too.
    pub second_fence: bool,
    pub steps: Vec<(Who, Style, Page, Operation)>,
}

/// The web page that makes a browser send a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Page {
    /// No browser.
    Nobody,
    /// A page that the rules of this tenant's grants name.
    Of(Who),
    /// A page that no rule names.
    Stranger,
}

/// The position of the bucket's name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Style {
    Host,
    Path,
}

#[derive(Clone, Debug)]
pub enum Operation {
    Abort(UploadOf),
    Begin(Spot),
    Complete(UploadOf),
    Copy {
        from: Spot,
        to: Spot,
    },
    Delete(Spot),
    /// A form whose key is changed after signing.
    Form {
        to: Spot,
        changed: Option<Name>,
    },
    Get(Spot, Reading),
    /// A presigned GET.
    Link(Spot, Tamper),
    List(Listing),
    ListBuckets,
    ListParts(UploadOf),
    MultiDelete {
        bucket: Bucket,
        names: Vec<Name>,
        quiet: bool,
    },
    Part {
        of: UploadOf,
        number: u32,
        size: usize,
    },
    PartCopy {
        of: UploadOf,
        number: u32,
        from: Spot,
    },
    /// A preflight of a browser.
    Preflight(Bucket, &'static str),
    Put {
        to: Spot,
        size: usize,
    },
    Tag(Spot, Tagging),
}

#[derive(Clone, Copy, Debug)]
pub struct Spot {
    pub bucket: Bucket,
    pub name: Name,
}

/// An upload of the caller or of its neighbour.
#[derive(Clone, Copy, Debug)]
pub struct UploadOf {
    pub theirs: bool,
    pub pick: usize,
}

#[derive(Clone, Copy, Debug)]
pub enum Reading {
    Whole,
    Head,
    Range(usize, usize),
    /// The version id that listings show, or another one.
    Version {
        listed: bool,
    },
}

#[derive(Clone, Copy, Debug)]
pub enum Tagging {
    Clear,
    Get,
    Set,
}

/// A change of a URL after signing.
#[derive(Clone, Copy, Debug)]
pub enum Tamper {
    Nothing,
    Id,
    Method,
    Name(Name),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    One,
    Two,
    Uploads,
    Versions,
}

#[derive(Clone, Debug)]
pub struct Listing {
    pub bucket: Bucket,
    pub form: Form,
    /// A folder and the first character of a name in it.
    pub prefix: Option<(Folder, Option<usize>)>,
    pub delimiter: bool,
    pub max: Option<usize>,
    pub encoded: bool,
    pub from: From,
}

#[derive(Clone, Copy, Debug)]
pub enum From {
    Start,
    After(Name),
    /// A marker of one of the neighbour's listings.
    Theirs(usize),
}

pub fn run() -> impl Strategy<Value = Run> {
    let who = select(vec![Who::Acme, Who::Globex]);
    let style = select(vec![Style::Host, Style::Path]);
    let page = prop_oneof![
        3 => Just(Page::Nobody),
        2 => select(vec![Page::Of(Who::Acme), Page::Of(Who::Globex)]),
        1 => Just(Page::Stranger),
    ];
    (any::<bool>(), vec((who, style, page, operation()), 0..100)).prop_map(
        |(second_fence, steps)| Run {
            second_fence,
            steps,
        },
    )
}

fn operation() -> impl Strategy<Value = Operation> {
    use Operation as Op;
    let number = 1_u32..4;
    prop_oneof![
        8 => (spot(), 0_usize..300).prop_map(|(to, size)| Op::Put { to, size }),
        5 => (spot(), reading()).prop_map(|(from, how)| Op::Get(from, how)),
        2 => spot().prop_map(Op::Delete),
        3 => (bucket(), vec(name(), 1..6), any::<bool>())
            .prop_map(|(bucket, names, quiet)| Op::MultiDelete { bucket, names, quiet }),
        5 => (spot(), spot()).prop_map(|(from, to)| Op::Copy { from, to }),
        3 => (spot(), select(vec![Tagging::Get, Tagging::Set, Tagging::Clear]))
            .prop_map(|(at, what)| Op::Tag(at, what)),
        4 => spot().prop_map(Op::Begin),
        4 => (upload(), number.clone(), 0_usize..300)
            .prop_map(|(of, number, size)| Op::Part { of, number, size }),
        3 => (upload(), number, spot()).prop_map(|(of, number, from)| Op::PartCopy { of, number, from }),
        3 => upload().prop_map(Op::Complete),
        1 => upload().prop_map(Op::Abort),
        2 => upload().prop_map(Op::ListParts),
        9 => listing().prop_map(Op::List),
        1 => Just(Op::ListBuckets),
        2 => (spot(), option::weighted(0.3, name())).prop_map(|(to, changed)| Op::Form { to, changed }),
        2 => (spot(), tamper()).prop_map(|(at, tamper)| Op::Link(at, tamper)),
        3 => (bucket(), select(vec!["GET", "PUT", "DELETE"])).prop_map(|(bucket, method)| Op::Preflight(bucket, method)),
    ]
}

/// Mostly places where the caller has access.
fn spot() -> impl Strategy<Value = Spot> {
    let own = prop_oneof![
        Just((Bucket::Photos, Folder::Own)),
        Just((Bucket::Box, Folder::Bare)),
        Just((Bucket::Away, Folder::Bare)),
    ];
    let own = (own, 0..LEAVES.len() - 3).prop_map(|((bucket, folder), leaf)| Spot {
        bucket,
        name: Name { folder, leaf },
    });
    let public = (0..5_usize).prop_map(|leaf| Spot {
        bucket: Bucket::Public,
        name: Name {
            folder: Folder::Public,
            leaf,
        },
    });
    let any = (bucket(), name()).prop_map(|(bucket, name)| Spot { bucket, name });
    prop_oneof![6 => own, 1 => public, 2 => any]
}

fn bucket() -> impl Strategy<Value = Bucket> {
    prop_oneof![
        3 => Just(Bucket::Photos),
        3 => Just(Bucket::Box),
        2 => Just(Bucket::Away),
        1 => Just(Bucket::Public),
        1 => Just(Bucket::Real),
    ]
}

fn folder() -> impl Strategy<Value = Folder> {
    prop_oneof![
        4 => Just(Folder::Own),
        4 => Just(Folder::Bare),
        2 => Just(Folder::Theirs),
        1 => Just(Folder::Beside),
        1 => Just(Folder::Public),
        1 => Just(Folder::Root),
        1 => Just(Folder::Up),
    ]
}

fn name() -> impl Strategy<Value = Name> {
    (folder(), 0..LEAVES.len()).prop_map(|(folder, leaf)| Name { folder, leaf })
}

fn upload() -> impl Strategy<Value = UploadOf> {
    let theirs = prop_oneof![3 => Just(false), 1 => Just(true)];
    (theirs, 0_usize..4).prop_map(|(theirs, pick)| UploadOf { theirs, pick })
}

fn reading() -> impl Strategy<Value = Reading> {
    prop_oneof![
        3 => Just(Reading::Whole),
        1 => Just(Reading::Head),
        1 => (0_usize..10, 0_usize..10).prop_map(|(from, more)| Reading::Range(from, from + more)),
        1 => any::<bool>().prop_map(|listed| Reading::Version { listed }),
    ]
}

fn tamper() -> impl Strategy<Value = Tamper> {
    prop_oneof![
        Just(Tamper::Nothing),
        Just(Tamper::Id),
        Just(Tamper::Method),
        name().prop_map(Tamper::Name),
    ]
}

fn listing() -> impl Strategy<Value = Listing> {
    let form = select(vec![Form::Two, Form::One, Form::Versions, Form::Uploads]);
    let first = || option::of(0..LEAVES.len());
    let own = prop_oneof![
        (
            Just(Bucket::Photos),
            (Just(Folder::Own), first()).prop_map(Some)
        ),
        (Just(Bucket::Box), option::of((Just(Folder::Bare), first()))),
        (
            Just(Bucket::Away),
            option::of((Just(Folder::Bare), first()))
        ),
        (Just(Bucket::Public), Just(Some((Folder::Public, None)))),
    ];
    let other = (bucket(), option::of((folder(), first())));
    let place = prop_oneof![3 => own, 2 => other];
    let from = prop_oneof![
        4 => Just(From::Start),
        1 => name().prop_map(From::After),
        2 => (0_usize..8).prop_map(From::Theirs),
    ];
    let switches = (any::<bool>(), any::<bool>(), option::of(1_usize..4));
    (place, form, from, switches).prop_map(
        |((bucket, prefix), form, from, (delimiter, encoded, max))| Listing {
            bucket,
            form,
            prefix,
            delimiter,
            max,
            encoded,
            from,
        },
    )
}
