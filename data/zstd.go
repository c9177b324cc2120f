package data

import (
	"sync"

	"github.com/apache/arrow/go/v16/parquet/compress"
	"github.com/klauspost/compress/zstd"
)

// Arrow's own codec creates an encoder, with tables of megabytes, for every page, and lets a page
// decompress to any size. This one keeps one encoder, and never writes beyond the size that the
// page's header declares.
func init() {
	arrow, err := compress.GetCodec(compress.Codecs.Zstd)
	if err != nil {
		panic(err)
	}
	compress.RegisterCodec(compress.Codecs.Zstd, zstdCodec{arrow})
}

type zstdCodec struct{ compress.Codec }

// The encoder and the decoder are safe for use by several goroutines at once.
var (
	zstdEncoder = sync.OnceValue(func() *zstd.Encoder {
		e, err := zstd.NewWriter(nil, zstd.WithEncoderLevel(zstd.SpeedFastest), zstd.WithZeroFrames(true))
		if err != nil {
			panic(err)
		}
		return e
	})
	zstdDecoder = sync.OnceValue(func() *zstd.Decoder {
		d, err := zstd.NewReader(nil, zstd.WithDecodeAllCapLimit(true), zstd.WithDecoderConcurrency(0))
		if err != nil {
			panic(err)
		}
		return d
	})
)

// Encode ends each frame with a checksum of its content, which Decode verifies.
func (zstdCodec) Encode(dst, src []byte) []byte { return zstdEncoder().EncodeAll(src, dst[:0]) }

func (c zstdCodec) EncodeLevel(dst, src []byte, _ int) []byte { return c.Encode(dst, src) }

func (zstdCodec) Decode(dst, src []byte) []byte {
	out, err := zstdDecoder().DecodeAll(src, dst[:0])
	if err != nil {
		panic(err) // the interface has no error; below recoverDecoder
	}
	return out
}
