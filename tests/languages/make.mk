# Builds the library and its tests, out of the source tree.
include config.mk

CC ?= cc
CFLAGS += -O2 -Wall
SOURCES := $(wildcard src/*.c)
OBJECTS := $(patsubst src/%.c,build/%.o,$(SOURCES))
VERSION != git describe --tags

ifeq ($(DEBUG),1)
CFLAGS += -g -fsanitize=address
endif

.PHONY: all test clean

all: build/libreadings.a

# One archive, so that it can be linked statically.
build/libreadings.a: $(OBJECTS)
	@echo "archiving $(words $(OBJECTS)) objects"
	$(AR) rcs $@ $^
	@touch build/$(VERSION)

build/%.o: src/%.c | build
	$(CC) $(CFLAGS) -c -o $@ $<

build:
	mkdir -p $@

test: build/libreadings.a
	for t in tests/*.c; do \
		$(CC) $(CFLAGS) $$t $< -o build/test && build/test || exit 1; \
	done

clean:
	rm -rf build
