use std::{fmt, sync::Arc};

use aws_lc_rs::{
    cipher::{
        AES_256, DecryptionContext, PaddedBlockDecryptingKey, PaddedBlockEncryptingKey,
        UnboundCipherKey,
    },
    hmac,
    iv::FixedLength,
};
use rustls::server::ProducesTickets;

use crate::SecretError;

/// How long a session ticket key is. Envoy: 80 bytes.
pub const TICKET_KEY_LEN: usize = 80;
/// The most session ticket keys; more are a config error.
pub const TICKET_KEYS_MAX: usize = 32;

const NAME: usize = 16;
const IV: usize = 16;
const TAG: usize = 32;

/// A key for session tickets: 16 bytes of name, 32 for the seal, 32 for the cipher, as in Envoy, so that
/// replicas that share it take up each other's sessions.
#[derive(Clone, PartialEq, Eq)]
pub struct TicketKey(Box<[u8; TICKET_KEY_LEN]>);

impl TicketKey {
    /// A key of exactly [`TICKET_KEY_LEN`] bytes.
    ///
    /// # Errors
    /// For any other length.
    pub fn new(bytes: &[u8]) -> Result<Self, SecretError> {
        let key: [u8; TICKET_KEY_LEN] = bytes
            .try_into()
            .map_err(|_| SecretError::TicketKey(bytes.len()))?;
        Ok(Self(Box::new(key)))
    }

    fn name(&self) -> &[u8] {
        &self.0[..NAME]
    }
}

impl fmt::Debug for TicketKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TicketKey([hidden])")
    }
}

/// Tickets under keys from config.
pub(super) struct Tickets {
    keys: Vec<Sealer>,
    /// Sealed along: sessions of one context are of no use in another, whose trust may differ.
    context: Vec<u8>,
}

struct Sealer {
    key: TicketKey,
    seal: hmac::Key,
    encrypt: PaddedBlockEncryptingKey,
    decrypt: PaddedBlockDecryptingKey,
}

impl Tickets {
    /// `None` when there is no key, or the library refuses one.
    pub(super) fn new(keys: &[TicketKey], context: Vec<u8>) -> Option<Arc<Self>> {
        let keys: Option<Vec<_>> = keys.iter().map(Sealer::new).collect();
        let keys = keys.filter(|keys| !keys.is_empty())?;
        Some(Arc::new(Self { keys, context }))
    }
}

impl Sealer {
    fn new(key: &TicketKey) -> Option<Self> {
        let cipher = || UnboundCipherKey::new(&AES_256, &key.0[NAME + TAG..]).ok();
        Some(Self {
            key: key.clone(),
            seal: hmac::Key::new(hmac::HMAC_SHA256, &key.0[NAME..NAME + TAG]),
            encrypt: PaddedBlockEncryptingKey::cbc_pkcs7(cipher()?).ok()?,
            decrypt: PaddedBlockDecryptingKey::cbc_pkcs7(cipher()?).ok()?,
        })
    }
}

impl fmt::Debug for Tickets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tickets")
            .field("keys", &self.keys.len())
            .finish_non_exhaustive()
    }
}

/// A ticket is the key's name, an initial vector, the session encrypted, and a seal over all of it.
impl ProducesTickets for Tickets {
    fn enabled(&self) -> bool {
        true
    }

    fn lifetime(&self) -> u32 {
        // What is around it says how long.
        0
    }

    fn encrypt(&self, plain: &[u8]) -> Option<Vec<u8>> {
        let sealer = self.keys.first()?;
        let mut body = plain.to_vec();
        let context = sealer.encrypt.encrypt(&mut body).ok()?;
        let iv: &[u8] = (&context).try_into().ok()?;
        let mut ticket = [sealer.key.name(), iv, &body].concat();
        let seal = hmac::sign(&sealer.seal, &[&ticket[..], &self.context].concat());
        ticket.extend_from_slice(seal.as_ref());
        Some(ticket)
    }

    fn decrypt(&self, ticket: &[u8]) -> Option<Vec<u8>> {
        let (sealed, seal) = ticket.split_at_checked(ticket.len().checked_sub(TAG)?)?;
        let (name, rest) = sealed.split_at_checked(NAME)?;
        let (iv, body) = rest.split_at_checked(IV)?;
        let sealer = self.keys.iter().find(|sealer| sealer.key.name() == name)?;
        hmac::verify(&sealer.seal, &[sealed, &self.context].concat(), seal).ok()?;
        let iv = FixedLength::<IV>::try_from(iv).ok()?;
        let mut body = body.to_vec();
        let plain = sealer
            .decrypt
            .decrypt(&mut body, DecryptionContext::Iv128(iv));
        Some(plain.ok()?.to_vec())
    }
}

#[cfg(test)]
mod tests {
    use rustls::server::ProducesTickets;

    use super::{TICKET_KEY_LEN, TicketKey, Tickets};

    fn key(byte: u8) -> TicketKey {
        TicketKey::new(&[byte; TICKET_KEY_LEN]).unwrap()
    }

    fn tickets(keys: &[u8], context: &[u8]) -> std::sync::Arc<Tickets> {
        let keys: Vec<_> = keys.iter().copied().map(key).collect();
        Tickets::new(&keys, context.to_vec()).unwrap()
    }

    #[test]
    fn replicas_share_sessions_and_old_keys_still_decrypt() {
        let ticket = tickets(&[1], b"a").encrypt(b"session").unwrap();
        let same = tickets(&[1], b"a").decrypt(&ticket);
        assert_eq!(same.as_deref(), Some(&b"session"[..]));
        let rotated = tickets(&[2, 1], b"a").decrypt(&ticket);
        assert_eq!(rotated.as_deref(), Some(&b"session"[..]));
        assert_eq!(tickets(&[2], b"a").decrypt(&ticket), None);
        assert_eq!(tickets(&[1], b"b").decrypt(&ticket), None, "another trust");
    }

    #[test]
    fn a_ticket_that_was_touched_is_no_ticket() {
        let all = tickets(&[1], b"");
        let ticket = all.encrypt(b"session").unwrap();
        for at in 0..ticket.len() {
            let mut touched = ticket.clone();
            touched[at] ^= 1;
            assert_eq!(all.decrypt(&touched), None, "byte {at}");
            assert_eq!(all.decrypt(&ticket[..at]), None, "cut at {at}");
        }
    }

    #[test]
    fn keys_have_one_length_and_hide() {
        assert!(TicketKey::new(&[0; 79]).is_err());
        assert_eq!(format!("{:?}", key(65)), "TicketKey([hidden])");
    }
}
