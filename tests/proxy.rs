//! The whole of it: a client's bytes in, cosgate, an embedded COS that checks everything.

mod support;

use support::{World, element};

#[test]
fn an_object_goes_up_and_comes_down_through_a_scoped_key() {
    let world = World::new();
    world
        .signed("PUT", "/photos/acme/a.txt")
        .body("hello")
        .send()
        .assert_ok();
    let reply = world.signed("GET", "/photos/acme/a.txt").send();
    assert_eq!(reply.assert_ok().text(), "hello");
    assert_eq!(
        world
            .emulator
            .object_bytes(support::BUCKET, "acme/a.txt")
            .unwrap(),
        b"hello"
    );
    let listing = world
        .signed("GET", "/photos?list-type=2&prefix=acme%2F")
        .send();
    assert_eq!(element(&listing.assert_ok().text(), "Name"), "photos");
    assert_eq!(element(&listing.text(), "Key"), "acme/a.txt");
}
