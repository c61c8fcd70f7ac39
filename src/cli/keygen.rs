//! `cosgate keygen`: a local access key pair.

use std::process::ExitCode;

use clap::Args;

/// Make a local access key pair, ready to paste.
#[derive(Args, Debug)]
#[command(after_help = "Example:
  cosgate keygen

The id goes into a tenant's access_keys; the secret into the environment of cosgate and of the
client. It is printed once and kept nowhere.")]
pub(super) struct Arguments {}

const ID_ALPHABET: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789";
/// No `/` and no `+`: a secret should survive shells, URLs and double clicks. 40 of these are 238 bits.
const SECRET_ALPHABET: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789";
const ID_LENGTH: usize = 20;
const SECRET_LENGTH: usize = 40;

pub(super) fn run(_: &Arguments) -> ExitCode {
    let pair = random(ID_ALPHABET, ID_LENGTH)
        .and_then(|id| random(SECRET_ALPHABET, SECRET_LENGTH).map(|secret| (id, secret)));
    match pair {
        Ok((id, secret)) => super::printed(&paste(&id, &secret)),
        Err(error) => {
            super::complain(&format_args!(
                "cosgate: error: cannot read random bytes from the system: {error}"
            ));
            ExitCode::FAILURE
        }
    }
}

fn paste(id: &str, secret: &str) -> String {
    format!(
        "# cosgate's configuration, in [tenants.NAME]:
access_keys = [{{ id = \"{id}\", secret = \"env:COSGATE_SECRET_{id}\" }}]

# cosgate's environment:
export COSGATE_SECRET_{id}={secret}

# the client's environment:
export AWS_ACCESS_KEY_ID={id}
export AWS_SECRET_ACCESS_KEY={secret}
"
    )
}

/// `length` characters, each of `alphabet` as likely as any other.
fn random(alphabet: &[u8], length: usize) -> Result<String, getrandom::Error> {
    // Bytes past the last whole multiple of the alphabet would favour its first characters.
    let fair = 256 - 256 % alphabet.len();
    let mut text = String::with_capacity(length);
    let mut bytes = [0; 64];
    while text.len() < length {
        getrandom::fill(&mut bytes)?;
        let fair_bytes = bytes.iter().map(|b| usize::from(*b)).filter(|b| *b < fair);
        let characters = fair_bytes.filter_map(|b| alphabet.get(b % alphabet.len()));
        text.extend(characters.take(length - text.len()).map(|b| char::from(*b)));
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn makes_keys_of_the_right_form_that_differ() {
        let one = random(ID_ALPHABET, ID_LENGTH).unwrap();
        let other = random(ID_ALPHABET, ID_LENGTH).unwrap();
        assert_eq!(one.len(), ID_LENGTH);
        assert!(one.bytes().all(|b| ID_ALPHABET.contains(&b)));
        assert_ne!(one, other);
    }

    #[test]
    fn uses_the_whole_alphabet() {
        let text = random(SECRET_ALPHABET, 20_000).unwrap();
        assert!(
            SECRET_ALPHABET
                .iter()
                .all(|b| text.contains(char::from(*b)))
        );
    }
}
