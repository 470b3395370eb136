//! AES-256 for FF1.
//!
//! The crate `fpe` clones its cipher in each of the ten rounds of FF1, and copying the keys of AES takes about as long as encrypting
//! with them. A clone of this cipher is a pointer. What it points to stays until the process ends, once for each key: reading a
//! mask's key again adds nothing, and another key, two ciphers of about a kilobyte. A counter of references would be written to by
//! all threads, twenty times for each encryption.

use std::sync::{Mutex, PoisonError};

use aes08::Aes256Enc;
use aes08::cipher::generic_array::GenericArray;
use aes08::cipher::{BlockEncrypt as _, KeyInit as _};
use cipher::consts::{U1, U16, U32};
use cipher::inout::InOut;
use cipher::{
    Block, BlockCipherEncBackend, BlockCipherEncClosure, BlockCipherEncrypt, BlockSizeUser, Key,
    KeyInit, KeySizeUser, ParBlocksSizeUser,
};

/// Encrypts one block at a time.
#[derive(Clone, Copy)]
pub(crate) struct Cipher(&'static Aes256Enc);

static OF_KEYS: Mutex<Vec<(Key<Cipher>, Cipher)>> = Mutex::new(Vec::new());

impl KeySizeUser for Cipher {
    type KeySize = U32;
}

impl BlockSizeUser for Cipher {
    type BlockSize = U16;
}

impl KeyInit for Cipher {
    fn new(key: &Key<Self>) -> Self {
        let mut known = OF_KEYS.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, cipher)) = known.iter().find(|(other, _)| other == key) {
            return *cipher;
        }
        let cipher = Self(Box::leak(Box::new(Aes256Enc::new(&GenericArray::from(
            key.0,
        )))));
        known.push((*key, cipher));
        cipher
    }
}

impl ParBlocksSizeUser for Cipher {
    type ParBlocksSize = U1;
}

impl BlockCipherEncBackend for Cipher {
    #[inline]
    fn encrypt_block(&self, mut block: InOut<'_, '_, Block<Self>>) {
        let bytes = block.get_in().0;
        let out = block.get_out();
        out.0 = bytes;
        self.0.encrypt_block(GenericArray::from_mut_slice(out));
    }
}

impl BlockCipherEncrypt for Cipher {
    #[inline]
    fn encrypt_with_backend(&self, f: impl BlockCipherEncClosure<BlockSize = U16>) {
        f.call(self);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_that_is_read_again_adds_nothing() {
        use crate::key::test_key;
        use crate::prf::Prf;
        let derived = [&b"digits"[..], b"bits"].map(|purpose| {
            let prf = Prf::new(b"read again long enough to be a key").unwrap();
            Key::<Cipher>::from(prf.mac(purpose, &[]))
        });
        let ours = || {
            let known = OF_KEYS.lock().unwrap();
            let is_ours = |(key, _): &&(Key<Cipher>, Cipher)| derived.contains(key);
            known.iter().filter(is_ours).count()
        };
        assert_eq!(ours(), 0);
        for _ in 0..100 {
            test_key("read again");
        }
        assert_eq!(ours(), 2);
        assert!(size_of::<Aes256Enc>() <= 1024);
    }

    #[test]
    fn blocks_are_those_of_aes_256() {
        use aes::cipher::{BlockCipherEncrypt as _, KeyInit as _};
        let key: [u8; 32] = std::array::from_fn(|at| u8::try_from(at * 7).unwrap());
        let reference = aes::Aes256Enc::new(&key.into());
        let mut blocks: [Block<Cipher>; 3] =
            std::array::from_fn(|at| [u8::try_from(at).unwrap(); 16].into());
        let mut wanted = blocks;
        Cipher::new(&key.into()).encrypt_blocks(&mut blocks);
        reference.encrypt_blocks(&mut wanted);
        assert_eq!(blocks, wanted);
        let mut one = [9; 16].into();
        BlockCipherEncrypt::encrypt_block(&Cipher::new(&key.into()), &mut one);
        let mut wanted = [9; 16].into();
        reference.encrypt_block(&mut wanted);
        assert_eq!(one, wanted);
    }

    #[test]
    fn a_key_has_one_cipher() {
        let cipher = |byte| Cipher::new(&[byte; 32].into());
        assert!(std::ptr::eq(cipher(1).0, cipher(1).0));
        assert!(!std::ptr::eq(cipher(1).0, cipher(2).0));
    }
}
