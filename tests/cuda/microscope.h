// A float that tells where it is read and written: with -DREAL=Watched a kernel's unchanged source
// becomes one that notes what a chosen thread does to memory. See microscope.py.
#pragma once
#include "executor.h"

struct Note { const void* address; float value; int written; };

namespace microscope {
uint3 block, thread;
Note notes[4096];
int count;

inline void note(const void* address, float value, bool written)
{
    const uint3 b = executor::block_index, t = executor::thread_index;
    const bool aimed = b.x == block.x && b.y == block.y && t.x == thread.x && t.y == thread.y;
    if (aimed && count < 4096) notes[count++] = {address, value, written};
}
}  // namespace microscope

struct Watched {
    float value;

    Watched() = default;
    Watched(float v) : value(v) {}
    Watched(int v) : value(v) {}
    Watched(double v) : value(v) {}
    Watched(const Watched& other) : value(other) {}
    operator float() const { microscope::note(this, value, false); return value; }
    Watched& operator=(const Watched& other)
    {
        value = other;
        microscope::note(this, value, true);
        return *this;
    }
    Watched& operator+=(float v) { return value += v, *this; }
    friend Watched operator*(const Watched& a, const Watched& b) { return (float)a * (float)b; }
};

extern "C" const Note* microscope_notes(int* how_many)
{
    *how_many = microscope::count;
    return microscope::notes;
}

extern "C" void microscope_aim(const unsigned* at)  // block x, y and thread x, y
{
    microscope::block = {at[0], at[1], 0};
    microscope::thread = {at[2], at[3], 0};
    microscope::count = 0;
}
