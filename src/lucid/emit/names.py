"""Names and texts as C writes them."""

from __future__ import annotations

import re

WORDS = """
main std alignas alignof and and_eq asm auto bitand bitor bool break case catch char char8_t
char16_t char32_t class co_await co_return co_yield compl concept const const_cast consteval
constexpr constinit continue decltype default delete do double dynamic_cast else enum explicit
export extern false float for friend goto if inline int long mutable namespace new noexcept not
not_eq nullptr operator or or_eq private protected public register reinterpret_cast requires return
short signed sizeof static static_assert static_cast struct switch template this thread_local throw
true try typedef typeid typename typeof union unsigned using virtual void volatile wchar_t while xor
xor_eq
linux unix errno stdin stdout stderr environ daylight timezone optarg optind opterr optopt signgam
tm lconv option passwd sigval timespec timeval
all clean help install
aio argp cnd epoll gai memfd mtx posix_spawn_file_actions posix_spawnattr pthread pthread_attr
pthread_barrier pthread_barrierattr pthread_cond pthread_condattr pthread_key pthread_mutex
pthread_mutexattr pthread_rwlock pthread_rwlockattr pthread_spin sem svc thrd timer timerfd tss
"""
"""The source of the example, and C++'s words and namespace; macros, variables and structures of C's
headers; targets of CMake; what the C library has functions of that begin so (`pthread_create`)."""
FUNCTIONS = """
abort abs accept access acct acos acosh alarm asin asinh atan atan2 atanh basename bind brk calloc
cbrt ceil clearenv clock clone close confstr connect copysign cos cosh creat ctime daemon difftime
div drem dup erf erfc err error errx exit exp exp10 exp2 expm1 fabs fcntl fdim feof ffs floor fma
fmax fmin fmod fopen fork fputs fread free frexp fseek fstat fsync ftell ftw fwrite gamma getc
getenv getopt gets getw glob gmtime hypot iconv index ioctl j0 j1 jn kill labs lchown ldexp ldiv
lgamma link linkat listen localtime lockf log log10 log1p log2 logb longjmp lseek lstat malloc
memchr memcmp memcpy memmem memmove memset mkdir mkfifo mknod mktemp mktime mlock mmap modf mount
munmap nan nice open openat opendir pause perror pipe poll popen pow pread printf profil ptrace putc
putenv puts putw pwrite qsort raise rand random read readdir readlink realloc reboot recv remainder
remove remque remquo rename revoke rewind rindex rint rmdir round sbrk scalb scandir scanf select
send sendfile setenv setjmp shutdown sigaction signal significand sin sinh sleep socket splice
sprintf sqrt srand srandom stat statfs stime strcat strchr strcmp strcpy strdup strlen strsep strstr
strtod strtok strtol swab symlink sync syncfs syscall sysconf sysinfo syslog system tan tanh tee
time times tmpfile tmpnam toascii tolower toupper trunc truncate twalk umask umount uname ungetc
unlink usleep utime valloc vfork wait waitpid warn warnx write y0 y1 yn
"""
"""Functions of the C library, which C++ has outside of all namespaces, with names that models may
have."""
RESERVED = frozenset((WORDS + FUNCTIONS).split())
"""What a library cannot be called."""


def identifier(text: str) -> str:
    """A name in lower case that C and C++ take, made of any text."""
    made = re.sub(r"[^a-z0-9]+", "_", text.lower()).strip("_")
    if not made or made[0].isdigit() or made in RESERVED:
        return f"m_{made}".rstrip("_")
    return made


def literal(text: str) -> str:
    """A string literal: all that is no plain ASCII as octal bytes, and no trigraphs."""
    plain = {*range(32, 127)} - {*b'"\\?'}
    return '"' + "".join(chr(b) if b in plain else f"\\{b:03o}" for b in text.encode()) + '"'


def comment(text: str) -> str:
    """A text of one line that can stand in a comment."""
    return "".join(c if " " <= c <= "~" else "?" for c in text).replace("*/", "* /")
