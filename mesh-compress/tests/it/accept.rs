use mesh_compress::{Candidate, Choice, choose};

fn chosen(accept_encoding: &str) -> Choice {
    let candidate = |token, choose_first| Candidate {
        token,
        choose_first,
    };
    choose(
        accept_encoding,
        &[
            candidate("gzip", false),
            candidate("br", false),
            candidate("zstd", true),
        ],
    )
}

#[test]
fn the_client_gets_what_it_likes_best() {
    assert_eq!(chosen("gzip"), Choice::Named(0));
    assert_eq!(chosen("gzip, br"), Choice::Named(0));
    assert_eq!(chosen("br, gzip"), Choice::Named(1));
    assert_eq!(chosen("gzip;q=0.5, br;q=0.8"), Choice::Named(1));
    assert_eq!(chosen("GZIP ; Q=0.5"), Choice::Named(0));
    assert_eq!(
        chosen("gzip, br, zstd"),
        Choice::Named(2),
        "it is to be chosen first"
    );
    assert_eq!(chosen("gzip, zstd;q=0.9"), Choice::Named(0));
    assert_eq!(chosen("*"), Choice::Wildcard(0));
    assert_eq!(chosen("br;q=0.1, *;q=0.5"), Choice::Wildcard(0));
    assert_eq!(chosen("identity, gzip;q=0.5"), Choice::Identity);
    assert_eq!(chosen("gzip;q=0.5, identity;q=0.5"), Choice::Named(0));
}

#[test]
fn what_is_not_there_or_makes_no_sense_is_not_chosen() {
    for accept_encoding in [
        "", "deflate", "gzip;q=0", "gzip;q=2", "gzip;q=x", ";q=1", "*;q=0",
    ] {
        assert_eq!(
            chosen(accept_encoding),
            Choice::NotValid,
            "{accept_encoding:?}"
        );
    }
    assert_eq!(choose("*", &[]), Choice::NotValid);
}
