/* What bindgen reads. asm/kvm.h is the one of the powerpc64le tree that the generator is given. */
#include <linux/stddef.h>

/* A flexible array in its plain form: the same layout without the nameless structures around it. */
#undef __DECLARE_FLEX_ARRAY
#define __DECLARE_FLEX_ARRAY(type, name) type name[0]

#include <linux/kvm.h>
