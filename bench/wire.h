/* What travels: WebSocket frames (RFC 6455), Pipecat's audio frames (proto/frames.proto) and
 * AudioSocket messages, from and to bytes. No sockets. For load.c and floor.c.
 */
#ifndef BENCH_WIRE_H
#define BENCH_WIRE_H

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

/* ---- AudioSocket: kind, length big-endian, payload ---- */

#define AS_HANGUP 0x00
#define AS_UUID 0x01
#define AS_SLIN 0x10
#define AS_HEADER 3
#define AS_FRAME 320 /* 20 ms of slin at 8 kHz */

static inline void as_put_header(uint8_t *at, int kind, size_t size)
{
    at[0] = (uint8_t)kind;
    at[1] = (uint8_t)(size >> 8);
    at[2] = (uint8_t)size;
}

/* ---- SHA-1 (RFC 3174) and base64, for the WebSocket handshake ---- */

static inline uint32_t sha1_rotate(uint32_t value, int by)
{
    return value << by | value >> (32 - by);
}

static inline void sha1_block(uint32_t h[5], const uint8_t *block)
{
    uint32_t w[80], a = h[0], b = h[1], c = h[2], d = h[3], e = h[4];
    for (int i = 0; i < 16; i++)
        w[i] = (uint32_t)block[4 * i] << 24 | (uint32_t)block[4 * i + 1] << 16 |
               (uint32_t)block[4 * i + 2] << 8 | block[4 * i + 3];
    for (int i = 16; i < 80; i++)
        w[i] = sha1_rotate(w[i - 3] ^ w[i - 8] ^ w[i - 14] ^ w[i - 16], 1);
    for (int i = 0; i < 80; i++) {
        uint32_t f, k;
        if (i < 20)
            f = (b & c) | (~b & d), k = 0x5A827999;
        else if (i < 40)
            f = b ^ c ^ d, k = 0x6ED9EBA1;
        else if (i < 60)
            f = (b & c) | (b & d) | (c & d), k = 0x8F1BBCDC;
        else
            f = b ^ c ^ d, k = 0xCA62C1D6;
        uint32_t next = sha1_rotate(a, 5) + f + e + k + w[i];
        e = d, d = c, c = sha1_rotate(b, 30), b = a, a = next;
    }
    h[0] += a, h[1] += b, h[2] += c, h[3] += d, h[4] += e;
}

/* Of at most 119 bytes: two blocks. */
static inline void sha1(const uint8_t *data, size_t size, uint8_t digest[20])
{
    uint32_t h[5] = {0x67452301, 0xEFCDAB89, 0x98BADCFE, 0x10325476, 0xC3D2E1F0};
    uint8_t padded[128] = {0};
    const size_t total = size < 56 ? 64 : 128;
    memcpy(padded, data, size);
    padded[size] = 0x80;
    padded[total - 2] = (uint8_t)(size * 8 >> 8);
    padded[total - 1] = (uint8_t)(size * 8);
    for (size_t at = 0; at < total; at += 64)
        sha1_block(h, padded + at);
    for (int i = 0; i < 20; i++)
        digest[i] = (uint8_t)(h[i / 4] >> (24 - 8 * (i % 4)));
}

static inline void base64(const uint8_t *data, size_t size, char *out)
{
    static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    for (size_t i = 0; i < size; i += 3) {
        const uint32_t three = (uint32_t)data[i] << 16 |
                               (i + 1 < size ? (uint32_t)data[i + 1] << 8 : 0) |
                               (i + 2 < size ? data[i + 2] : 0);
        *out++ = digits[three >> 18];
        *out++ = digits[three >> 12 & 63];
        *out++ = i + 1 < size ? digits[three >> 6 & 63] : '=';
        *out++ = i + 2 < size ? digits[three & 63] : '=';
    }
    *out = 0;
}

/* ---- WebSocket ---- */

enum { WS_TEXT = 1, WS_BINARY = 2, WS_CLOSE = 8, WS_PING = 9, WS_PONG = 10 };

#define WS_MAX_HEADER 14
#define WS_KEY "AQIDBAUGBwgJCgsMDQ4PEA==" /* any 16 bytes do: it only shows that both speak it */

struct ws_frame {
    int opcode;
    int fin;
    uint8_t *payload;
    size_t size;
};

/* XOR with the mask, eight bytes at a time. */
static inline void ws_mask(uint8_t *data, size_t size, uint32_t mask)
{
    const uint64_t wide = (uint64_t)mask << 32 | mask;
    size_t i = 0;
    for (; i + 8 <= size; i += 8) {
        uint64_t word;
        memcpy(&word, data + i, 8);
        word ^= wide;
        memcpy(data + i, &word, 8);
    }
    for (; i < size; i++)
        data[i] ^= (uint8_t)(mask >> 8 * (i % 4));
}

/* Read the first frame in a buffer and unmask it where it lies. Return its size with the header; 0
 * when some of it is missing; -1 when it can never fit in `room` bytes. */
static inline long ws_parse(uint8_t *data, size_t have, size_t room, struct ws_frame *frame)
{
    size_t header = 2;
    if (have < 2)
        return 0;
    uint64_t size = data[1] & 0x7F;
    if (size == 126)
        header = 4;
    else if (size == 127)
        header = 10;
    if (have < header)
        return 0;
    if (header > 2) {
        size = 0;
        for (size_t i = 2; i < header; i++)
            size = size << 8 | data[i];
    }
    const int masked = data[1] >> 7;
    if (size > room - WS_MAX_HEADER)
        return -1;
    if (have < header + 4u * (unsigned)masked + size)
        return 0;
    frame->fin = data[0] >> 7;
    frame->opcode = data[0] & 15;
    frame->size = size;
    frame->payload = data + header + 4 * masked;
    if (masked) {
        uint32_t mask;
        memcpy(&mask, data + header, 4);
        ws_mask(frame->payload, size, mask);
    }
    return (long)(header + 4u * (unsigned)masked + size);
}

/* How long the header of a frame is. */
static inline size_t ws_header_size(size_t size, int masked)
{
    return (size < 126 ? 2u : 4u) + (masked ? 4u : 0u);
}

/* Write the header of a whole message below 64 KiB; the mask is not applied yet. */
static inline void ws_put_header(uint8_t *at, int opcode, size_t size, const uint32_t *mask)
{
    const uint8_t flag = mask ? 0x80 : 0;
    *at++ = (uint8_t)(0x80 | opcode);
    if (size < 126) {
        *at++ = (uint8_t)(flag | size);
    } else {
        *at++ = flag | 126;
        *at++ = (uint8_t)(size >> 8);
        *at++ = (uint8_t)size;
    }
    if (mask)
        memcpy(at, mask, 4);
}

/* A new mask for each frame; unpredictable enough for a bench. */
static inline uint32_t ws_next_mask(void)
{
    static uint32_t state = 0x9E3779B9;
    state ^= state << 13, state ^= state >> 17, state ^= state << 5;
    return state;
}

static inline int ws_request(char *out, size_t room, const char *host, const char *path)
{
    return snprintf(out, room,
                    "GET %s HTTP/1.1\r\nHost: %s\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                    "Sec-WebSocket-Key: " WS_KEY "\r\nSec-WebSocket-Version: 13\r\n\r\n",
                    path, host);
}

/* Return the answer's length to a request that ends with an empty line; 0 when it is none. */
static inline int ws_answer(const char *request, char *out, size_t room)
{
    static const char name[] = "\r\nsec-websocket-key:";
    static const char suffix[] = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";
    const char *at = request;
    while (*at && strncasecmp(at, name, sizeof name - 1) != 0)
        at++;
    if (!*at)
        return 0;
    at += sizeof name - 1;
    at += strspn(at, " \t");
    const size_t length = strcspn(at, " \t\r\n");
    char text[110];
    uint8_t digest[20];
    char accept[32];
    if (length + sizeof suffix > sizeof text)
        return 0;
    memcpy(text, at, length);
    memcpy(text + length, suffix, sizeof suffix);
    sha1((const uint8_t *)text, length + sizeof suffix - 1, digest);
    base64(digest, sizeof digest, accept);
    return snprintf(out, room,
                    "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n"
                    "Connection: Upgrade\r\nSec-WebSocket-Accept: %s\r\n\r\n",
                    accept);
}

/* ---- Pipecat's audio frames ---- */

#define PB_MAX_HEAD 64
#define PB_TAIL 5

static inline uint8_t *pb_put_varint(uint8_t *at, uint64_t value)
{
    for (; value > 0x7F; value >>= 7)
        *at++ = (uint8_t)(0x80 | value);
    *at++ = (uint8_t)value;
    return at;
}

static inline size_t pb_varint_size(uint64_t value)
{
    size_t size = 1;
    for (; value > 0x7F; value >>= 7)
        size++;
    return size;
}

/* Write what stands before the samples, and return its length. With an id it is what Pipecat sends:
 * id and name are there. Without, what mediad sends. Behind the samples comes pb_put_tail. */
static inline size_t pb_put_head(uint8_t *out, uint64_t id, size_t pcm_size)
{
    char name[40];
    size_t name_size = 0, extra = 0;
    if (id) {
        name_size = (size_t)snprintf(name, sizeof name, "OutputAudioRawFrame#%llu",
                                     (unsigned long long)id);
        extra = 1 + pb_varint_size(id) + 2 + name_size;
    }
    uint8_t *at = out;
    *at++ = 2 << 3 | 2; /* Frame.audio */
    at = pb_put_varint(at, extra + 1 + pb_varint_size(pcm_size) + pcm_size + PB_TAIL);
    if (id) {
        *at++ = 1 << 3;
        at = pb_put_varint(at, id);
        *at++ = 2 << 3 | 2;
        *at++ = (uint8_t)name_size;
        memcpy(at, name, name_size);
        at += name_size;
    }
    *at++ = 3 << 3 | 2; /* the samples */
    return (size_t)(pb_put_varint(at, pcm_size) - out);
}

/* 16,000 samples a second, one channel. */
static inline void pb_put_tail(uint8_t *at)
{
    static const uint8_t tail[PB_TAIL] = {4 << 3, 0x80 | (16000 & 0x7F), 16000 >> 7, 5 << 3, 1};
    memcpy(at, tail, PB_TAIL);
}

static inline const uint8_t *pb_varint(const uint8_t *at, const uint8_t *end, uint64_t *value)
{
    *value = 0;
    for (int shift = 0; at < end && shift < 63; shift += 7) {
        *value |= (uint64_t)(*at & 0x7F) << shift;
        if (*at++ < 0x80)
            return at;
    }
    return NULL;
}

/* Find the samples of an audio frame; 0 when it is another frame, or none. */
static inline int pb_find_audio(const uint8_t *at, size_t size, const uint8_t **pcm,
                                size_t *pcm_size, uint64_t *rate_hz)
{
    const uint8_t *end = at + size;
    uint64_t value;
    if (size == 0 || *at != (2 << 3 | 2) || !(at = pb_varint(at + 1, end, &value)) ||
        value != (uint64_t)(end - at))
        return 0;
    *pcm = NULL, *pcm_size = 0, *rate_hz = 0;
    while (at < end) {
        const int tag = *at;
        if (!(at = pb_varint(at + 1, end, &value)))
            return 0;
        if ((tag & 7) == 2) {
            if (value > (uint64_t)(end - at))
                return 0;
            if (tag >> 3 == 3)
                *pcm = at, *pcm_size = value;
            at += value;
        } else if ((tag & 7) != 0) {
            return 0;
        } else if (tag >> 3 == 4) {
            *rate_hz = value;
        }
    }
    return *pcm != NULL;
}

#endif
