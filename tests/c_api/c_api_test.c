/* The C API from C: a small attention against a hand loop, plans, text, errors, struct_size, appends, merges.
 * Each test_* function is one behaviour; the program says which one failed and exits with 1. */
#include <math.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "regard/c_api.h"

static int g_failures = 0;

#define EXPECT(condition)                                                                     \
  do {                                                                                        \
    if (!(condition)) {                                                                       \
      ++g_failures;                                                                           \
      printf("%s:%d: %s\n  last error: %s\n", __func__, __LINE__, #condition, regard_last_error()); \
    }                                                                                         \
  } while (0)
#define EXPECT_TEXT(got, expected)                                                  \
  do {                                                                              \
    if (strcmp((got), (expected)) != 0) {                                           \
      ++g_failures;                                                                 \
      printf("%s:%d: got \"%s\", expected \"%s\"\n", __func__, __LINE__, got, expected); \
    }                                                                               \
  } while (0)

/* One dense causal problem with grouped heads. */
enum { S = 17, HQ = 4, HKV = 2, D = 8, DV = 5 };

typedef struct Call {
  float q[S * HQ * D], k[S * HKV * D], v[S * HKV * DV], out[S * HQ * DV], lse[HQ * S];
  regard_tensor tq, tk, tv, tout, tlse;
  regard_options options;
  regard_args args;
} Call;

static regard_tensor View(void* data, regard_dtype dtype, int32_t rank, int64_t a, int64_t b, int64_t c, int64_t d) {
  const int64_t shape[4] = {a, b, c, d};
  regard_tensor t;
  EXPECT(regard_tensor_contiguous(data, dtype, rank, shape, &t) == REGARD_OK);
  return t;
}

static void Fill(float* x, size_t n, unsigned seed) {
  for (size_t i = 0; i < n; ++i) {
    seed = seed * 1664525u + 1013904223u;
    x[i] = (float)(seed >> 8) / 8388608.0f - 1.0f;
  }
}

static void Init(Call* c) {
  const regard_options options = REGARD_OPTIONS_INIT;
  const regard_args args = REGARD_ARGS_INIT;
  memset(c, 0, sizeof(*c));
  Fill(c->q, S * HQ * D, 1);
  Fill(c->k, S * HKV * D, 2);
  Fill(c->v, S * HKV * DV, 3);
  c->tq = View(c->q, REGARD_F32, 4, 1, S, HQ, D);
  c->tk = View(c->k, REGARD_F32, 4, 1, S, HKV, D);
  c->tv = View(c->v, REGARD_F32, 4, 1, S, HKV, DV);
  c->tout = View(c->out, REGARD_F32, 4, 1, S, HQ, DV);
  c->tlse = View(c->lse, REGARD_F32, 3, 1, HQ, S, 0);
  c->options = options;
  c->options.causal = 1;
  c->args = args;
  c->args.q = &c->tq;
  c->args.k = &c->tk;
  c->args.v = &c->tv;
  c->args.out = &c->tout;
  c->args.lse = &c->tlse;
}

/* Scores of query i and head h against keys 0..i, as double: softmax weights in p, returns the log-sum-exp. */
static double HandSoftmax(const Call* c, int h, int i, int keys, double scale, double* p) {
  double largest = -INFINITY, sum = 0;
  for (int j = 0; j < keys; ++j) {
    double s = 0;
    for (int e = 0; e < D; ++e) {
      s += (double)c->q[(i * HQ + h) * D + e] * c->k[(j * HKV + h / (HQ / HKV)) * D + e];
    }
    p[j] = s * scale;
    if (p[j] > largest) largest = p[j];
  }
  for (int j = 0; j < keys; ++j) sum += exp(p[j] - largest);
  for (int j = 0; j < keys; ++j) p[j] = exp(p[j] - largest) / sum;
  return largest + log(sum);
}

/* Largest difference of out and lse from the hand loop. */
static double Miss(const Call* c, double scale) {
  double miss = 0, p[S];
  for (int h = 0; h < HQ; ++h) {
    for (int i = 0; i < S; ++i) {
      const double lse = HandSoftmax(c, h, i, i + 1, scale, p);
      miss = fmax(miss, fabs(lse - c->lse[h * S + i]));
      for (int e = 0; e < DV; ++e) {
        double o = 0;
        for (int j = 0; j <= i; ++j) o += p[j] * c->v[(j * HKV + h / (HQ / HKV)) * DV + e];
        miss = fmax(miss, fabs(o - c->out[(i * HQ + h) * DV + e]));
      }
    }
  }
  return miss;
}

static void test_version_is_that_of_the_header(void) { EXPECT_TEXT(regard_version(), REGARD_VERSION_STRING); }

static void test_attention_agrees_with_a_hand_loop(void) {
  Call c;
  regard_selection* selection = NULL;
  const double scale = 0.75;
  Init(&c);
  EXPECT(regard_attention(&c.args, &c.options, NULL) == REGARD_OK);
  EXPECT(Miss(&c, 1 / sqrt(D)) < 1e-5);
  c.options.scale = &scale;
  c.options.kernels = "reference";
  EXPECT(regard_attention(&c.args, &c.options, &selection) == REGARD_OK);
  EXPECT(Miss(&c, scale) < 1e-5);
  EXPECT_TEXT(regard_selection_kernel(selection), "reference");
  EXPECT(strlen(regard_selection_numerics(selection)) > 0);
  regard_selection_destroy(selection);
}

static void test_plan_is_launched_many_times_and_gives_the_bits_of_one_call(void) {
  Call once, planned;
  regard_selection* selection = NULL;
  Init(&once);
  Init(&planned);
  EXPECT(regard_attention(&once.args, &once.options, NULL) == REGARD_OK);
  EXPECT(regard_select("prefill b=1 sq=17 skv=17 hq=4 hkv=2 d=8 dv=5 dtype=f32 causal lse", NULL, NULL, &selection) ==
         REGARD_OK);
  for (int32_t threads = 0; threads <= 2; ++threads) {
    regard_plan* plan = NULL;
    EXPECT(regard_plan_create(selection, threads, &plan) == REGARD_OK);
    const size_t bytes = regard_plan_workspace_bytes(plan);
    void* workspace = malloc(bytes + 1);
    for (int round = 0; round < 2; ++round) {
      memset(planned.out, 0x7f, sizeof(planned.out));
      memset(planned.lse, 0x7f, sizeof(planned.lse));
      EXPECT(regard_launch(plan, &planned.args, workspace, bytes) == REGARD_OK);
      EXPECT(memcmp(planned.out, once.out, sizeof(once.out)) == 0);
      EXPECT(memcmp(planned.lse, once.lse, sizeof(once.lse)) == 0);
    }
    if (bytes > 0) EXPECT(regard_launch(plan, &planned.args, workspace, bytes - 1) == REGARD_INVALID_ARGUMENT);
    free(workspace);
    regard_plan_destroy(plan);
  }
  regard_selection_destroy(selection);
}

static void test_errors_name_field_value_and_expectation_and_write_nothing(void) {
  Call c;
  Init(&c);
  memset(c.out, 0x55, sizeof(c.out));
  Call before = c;
  c.tk.dtype = 99;
  EXPECT(regard_attention(&c.args, &c.options, NULL) == REGARD_INVALID_ARGUMENT);
  EXPECT_TEXT(regard_last_error_field(), "k.dtype");
  EXPECT_TEXT(regard_last_error_value(), "99");
  EXPECT_TEXT(regard_last_error_expected(), "a regard_dtype");
  EXPECT_TEXT(regard_last_error(), "k.dtype: 99; expected a regard_dtype");
  c.tk.dtype = REGARD_F32;
  c.tv.rank = 9;
  EXPECT(regard_attention(&c.args, &c.options, NULL) == REGARD_INVALID_ARGUMENT);
  EXPECT_TEXT(regard_last_error_field(), "v.rank");
  c.tv.rank = 4;
  c.args.q = NULL;
  EXPECT(regard_attention(&c.args, &c.options, NULL) == REGARD_INVALID_ARGUMENT);
  EXPECT_TEXT(regard_last_error_field(), "q");
  c.args.q = &c.tq;
  c.options.causal = 7;
  EXPECT(regard_attention(&c.args, &c.options, NULL) == REGARD_INVALID_ARGUMENT);
  EXPECT_TEXT(regard_last_error_field(), "options.causal");
  c.options.causal = 1;
  c.options.kernels = "no.such.kernel";
  EXPECT(regard_attention(&c.args, &c.options, NULL) == REGARD_INVALID_ARGUMENT);
  EXPECT(strstr(regard_last_error(), "no.such.kernel") != NULL);
  c.options.kernels = ",";
  EXPECT(regard_attention(&c.args, &c.options, NULL) == REGARD_INVALID_ARGUMENT);
  EXPECT_TEXT(regard_last_error_field(), "kernels");
  c.options.kernels = NULL;
  c.tk.shape[2] = 3; /* 4 query heads over 3 key heads */
  EXPECT(regard_attention(&c.args, &c.options, NULL) == REGARD_INVALID_ARGUMENT);
  EXPECT(strlen(regard_last_error_field()) > 0);
  c.tk.shape[2] = HKV;
  EXPECT(regard_varlen_attention(&c.args, &c.options, NULL) == REGARD_INVALID_ARGUMENT);
  EXPECT(strstr(regard_last_error(), "cu_seqlens_q") != NULL);
  EXPECT(regard_with_kvcache(&c.args, &c.options, NULL) == REGARD_INVALID_ARGUMENT);
  EXPECT(strstr(regard_last_error(), "cache_seqlens") != NULL);
  EXPECT(regard_attention(NULL, NULL, NULL) == REGARD_INVALID_ARGUMENT);
  EXPECT(regard_launch(NULL, &c.args, NULL, 0) == REGARD_INVALID_ARGUMENT);
  EXPECT(regard_plan_create(NULL, 0, NULL) == REGARD_INVALID_ARGUMENT);
  EXPECT(regard_select("prefill", NULL, NULL, NULL) == REGARD_INVALID_ARGUMENT);
  EXPECT(memcmp(c.out, before.out, sizeof(c.out)) == 0);
}

static void* ErrorOfAnotherThread(void* text) {
  snprintf(text, 64, "[%s]", regard_last_error());
  return NULL;
}

static void test_last_error_belongs_to_its_thread(void) {
  pthread_t thread;
  char text[64] = "";
  EXPECT(regard_select(NULL, NULL, NULL, NULL) == REGARD_INVALID_ARGUMENT);
  EXPECT(strlen(regard_last_error()) > 0);
  EXPECT(pthread_create(&thread, NULL, ErrorOfAnotherThread, text) == 0);
  pthread_join(thread, NULL);
  EXPECT_TEXT(text, "[]");
}

static void test_struct_size_lets_old_and_new_programs_in(void) {
  Call c;
  Init(&c);
  /* An older header: everything from `causal` on did not exist, and its place holds other data. */
  c.options.struct_size = offsetof(regard_options, causal);
  memset(&c.options.causal, 0xee, sizeof(c.options) - offsetof(regard_options, causal));
  c.args.struct_size = offsetof(regard_args, cu_seqlens_q);
  memset(&c.args.cu_seqlens_q, 0xee, sizeof(c.args) - offsetof(regard_args, cu_seqlens_q));
  EXPECT(regard_attention(&c.args, &c.options, NULL) == REGARD_OK);
  double p[S], o = 0;
  const double lse = HandSoftmax(&c, 0, 0, S, 1 / sqrt(D), p); /* not causal: the default */
  for (int j = 0; j < S; ++j) o += p[j] * c.v[j * HKV * DV];
  EXPECT(fabs(lse - c.lse[0]) < 1e-5);
  EXPECT(fabs(o - c.out[0]) < 1e-5);

  /* A newer header: a longer struct, fine while its new fields are zero. */
  struct {
    regard_options options;
    long long later;
  } newer;
  Init(&c);
  memset(&newer, 0, sizeof(newer));
  newer.options = c.options;
  newer.options.struct_size = sizeof(newer);
  EXPECT(regard_attention(&c.args, &newer.options, NULL) == REGARD_OK);
  EXPECT(Miss(&c, 1 / sqrt(D)) < 1e-5);
  newer.later = 1;
  EXPECT(regard_attention(&c.args, &newer.options, NULL) == REGARD_INVALID_ARGUMENT);
  EXPECT_TEXT(regard_last_error_field(), "options.struct_size");

  const size_t wrong[] = {0, 1, (size_t)-1};
  for (int i = 0; i < 3; ++i) {
    Init(&c);
    c.args.struct_size = wrong[i];
    EXPECT(regard_attention(&c.args, &c.options, NULL) == REGARD_INVALID_ARGUMENT);
    EXPECT_TEXT(regard_last_error_field(), "args.struct_size");
    EXPECT_TEXT(regard_last_error_expected(), "sizeof(regard_args)");
  }
}

static void test_problem_text_goes_in_and_comes_out(void) {
  static const char kText[] = "prefill b=2 sq=64 skv=128 hq=8 hkv=2 d=64 dtype=bf16 causal softcap=30";
  char buffer[512] = "untouched", again[512];
  size_t needed = 0;
  EXPECT(regard_problem_parse(kText, NULL, 0, &needed) == REGARD_OK);
  EXPECT(needed > 1 && needed <= sizeof(buffer));
  EXPECT(regard_problem_parse(kText, buffer, needed - 1, NULL) == REGARD_BUFFER_TOO_SMALL);
  EXPECT_TEXT(buffer, "untouched");
  EXPECT_TEXT(regard_last_error_field(), "buffer_bytes");
  EXPECT(regard_problem_parse(kText, buffer, needed, NULL) == REGARD_OK);
  EXPECT(strlen(buffer) + 1 == needed);
  EXPECT(regard_problem_parse(buffer, again, sizeof(again), NULL) == REGARD_OK);
  EXPECT_TEXT(again, buffer);
  EXPECT(regard_problem_parse("prefill casual", buffer, sizeof(buffer), NULL) == REGARD_INVALID_ARGUMENT);
  EXPECT(strstr(regard_last_error(), "causal") != NULL);
  EXPECT(regard_problem_parse("prefill hq=7 hkv=2", buffer, sizeof(buffer), NULL) == REGARD_INVALID_ARGUMENT);
  EXPECT(regard_problem_parse(NULL, NULL, 0, NULL) == REGARD_INVALID_ARGUMENT);

  Call c;
  Init(&c);
  EXPECT(regard_problem_print(&c.args, &c.options, buffer, sizeof(buffer), NULL) == REGARD_OK);
  EXPECT(strstr(buffer, "sq=17") != NULL && strstr(buffer, "causal") != NULL && strstr(buffer, "dv=5") != NULL);
}

static char* Explained(const regard_selection* selection, regard_format format) {
  size_t needed = 0;
  EXPECT(regard_selection_explain(selection, format, NULL, 0, &needed) == REGARD_OK);
  char* text = calloc(needed + 1, 1);
  EXPECT(regard_selection_explain(selection, format, text, needed, NULL) == REGARD_OK);
  return text;
}

static void test_selection_explains_itself(void) {
  static const char kText[] = "decode b=2 sq=1 skv=100 hq=4 hkv=2 d=64 dtype=f32";
  regard_selection *any = NULL, *reference = NULL, *none = NULL;
  EXPECT(regard_select(kText, NULL, NULL, &any) == REGARD_OK);
  EXPECT(regard_select(kText, NULL, "cpu", &reference) == REGARD_OK);
  EXPECT_TEXT(regard_selection_kernel(reference), "reference");
  char* text = Explained(any, REGARD_TEXT);
  EXPECT(strstr(text, regard_selection_kernel(any)) != NULL);
  char* json = Explained(any, REGARD_JSON);
  EXPECT(json[0] == '{' && strstr(json, regard_selection_kernel(any)) != NULL);
  EXPECT(regard_selection_explain(any, (regard_format)9, NULL, 0, NULL) == REGARD_INVALID_ARGUMENT);
  EXPECT_TEXT(regard_last_error_field(), "format");
  EXPECT(regard_select(kText, NULL, "cpu,reference", &none) == REGARD_INVALID_ARGUMENT);
  EXPECT(none == NULL);
  free(text);
  free(json);
  regard_selection_destroy(any);
  regard_selection_destroy(reference);
  regard_selection_destroy(NULL);
  regard_plan_destroy(NULL);
}

static void test_kvcache_appends_in_place(void) {
  Call whole, step;
  int32_t used = S - 1;
  float k_new[HKV * D], v_new[HKV * DV];
  Init(&whole);
  EXPECT(regard_attention(&whole.args, &whole.options, NULL) == REGARD_OK);
  Init(&step);
  memcpy(k_new, step.k + used * HKV * D, sizeof(k_new));
  memcpy(v_new, step.v + used * HKV * DV, sizeof(v_new));
  memset(step.k + used * HKV * D, 0xff, sizeof(k_new)); /* NaN, until it is written */
  memset(step.v + used * HKV * DV, 0xff, sizeof(v_new));
  const regard_tensor lens = View(&used, REGARD_I32, 1, 1, 0, 0, 0);
  const regard_tensor tk_new = View(k_new, REGARD_F32, 4, 1, 1, HKV, D);
  const regard_tensor tv_new = View(v_new, REGARD_F32, 4, 1, 1, HKV, DV);
  step.tq = View(step.q + used * HQ * D, REGARD_F32, 4, 1, 1, HQ, D);
  step.tout = View(step.out, REGARD_F32, 4, 1, 1, HQ, DV);
  step.args.lse = NULL;
  step.args.cache_seqlens = &lens;
  step.args.k_new = &tk_new;
  step.args.v_new = &tv_new;
  EXPECT(regard_with_kvcache(&step.args, &step.options, NULL) == REGARD_OK);
  EXPECT(memcmp(step.k, whole.k, sizeof(whole.k)) == 0);
  EXPECT(memcmp(step.v, whole.v, sizeof(whole.v)) == 0);
  EXPECT(used == S - 1);
  for (int i = 0; i < HQ * DV; ++i) EXPECT(fabs(step.out[i] - whole.out[(S - 1) * HQ * DV + i]) < 1e-5);
}

static float Halve(const void* ctx, float s, int64_t b, int64_t h, int64_t i, int64_t j) {
  (void)b, (void)h, (void)i, (void)j;
  return s * *(const float*)ctx;
}

static bool NotAfter(const void* ctx, int64_t b, int64_t h, int64_t i, int64_t j) {
  (void)ctx, (void)b, (void)h;
  return j <= i;
}

static void test_a_callers_functions_change_scores_and_hide_keys(void) {
  Call c;
  const float half = 0.5f;
  Init(&c);
  c.options.causal = 0;
  c.args.score_mod = Halve;
  c.args.score_mod_ctx = &half;
  c.args.mask_mod = NotAfter;
  EXPECT(regard_attention(&c.args, &c.options, NULL) == REGARD_OK);
  EXPECT(Miss(&c, 0.5 / sqrt(D)) < 1e-5);
}

/* Gradients of sum dout * out + sum dlse * lse of a Call. */
typedef struct Gradients {
  float dout[S * HQ * DV], dlse[HQ * S], dq[S * HQ * D], dk[S * HKV * D], dv[S * HKV * DV];
  regard_tensor tdout, tdlse, tdq, tdk, tdv;
  regard_backward_args args;
} Gradients;

static void InitGradients(Gradients* g, const Call* c) {
  const regard_backward_args args = REGARD_BACKWARD_ARGS_INIT;
  memset(g, 0, sizeof(*g));
  Fill(g->dout, S * HQ * DV, 4);
  Fill(g->dlse, HQ * S, 5);
  g->tdout = View(g->dout, REGARD_F32, 4, 1, S, HQ, DV);
  g->tdlse = View(g->dlse, REGARD_F32, 3, 1, HQ, S, 0);
  g->tdq = View(g->dq, REGARD_F32, 4, 1, S, HQ, D);
  g->tdk = View(g->dk, REGARD_F32, 4, 1, S, HKV, D);
  g->tdv = View(g->dv, REGARD_F32, 4, 1, S, HKV, DV);
  g->args = args;
  g->args.forward = &c->args;
  g->args.dout = &g->tdout;
  g->args.dlse = &g->tdlse;
  g->args.dq = &g->tdq;
  g->args.dk = &g->tdk;
  g->args.dv = &g->tdv;
}

/* Largest difference from the sums as they stand in docs/semantics.md. */
static double GradientMiss(const Call* c, const Gradients* g) {
  static double dq[S * HQ * D], dk[S * HKV * D], dv[S * HKV * DV];
  const double scale = 1 / sqrt(D);
  double miss = 0, p[S];
  memset(dq, 0, sizeof(dq));
  memset(dk, 0, sizeof(dk));
  memset(dv, 0, sizeof(dv));
  for (int h = 0; h < HQ; ++h) {
    const int kv = h / (HQ / HKV);
    for (int i = 0; i < S; ++i) {
      double dp[S], delta = 0;
      HandSoftmax(c, h, i, i + 1, scale, p);
      for (int j = 0; j <= i; ++j) {
        dp[j] = 0;
        for (int e = 0; e < DV; ++e) dp[j] += (double)g->dout[(i * HQ + h) * DV + e] * c->v[(j * HKV + kv) * DV + e];
        delta += p[j] * dp[j];
      }
      for (int j = 0; j <= i; ++j) {
        const double ds = scale * p[j] * (dp[j] - delta + g->dlse[h * S + i]);
        for (int e = 0; e < D; ++e) {
          dq[(i * HQ + h) * D + e] += ds * c->k[(j * HKV + kv) * D + e];
          dk[(j * HKV + kv) * D + e] += ds * c->q[(i * HQ + h) * D + e];
        }
        for (int e = 0; e < DV; ++e) dv[(j * HKV + kv) * DV + e] += p[j] * g->dout[(i * HQ + h) * DV + e];
      }
    }
  }
  for (int n = 0; n < S * HQ * D; ++n) miss = fmax(miss, fabs(dq[n] - g->dq[n]));
  for (int n = 0; n < S * HKV * D; ++n) miss = fmax(miss, fabs(dk[n] - g->dk[n]));
  for (int n = 0; n < S * HKV * DV; ++n) miss = fmax(miss, fabs(dv[n] - g->dv[n]));
  return miss;
}

static void test_backward_agrees_with_a_hand_loop(void) {
  Call c;
  Gradients g;
  regard_selection* selection = NULL;
  char text[200];
  size_t needed = 0;
  Init(&c);
  EXPECT(regard_attention(&c.args, &c.options, NULL) == REGARD_OK);
  InitGradients(&g, &c);
  EXPECT(regard_attention_backward(&g.args, &c.options, &selection) == REGARD_OK);
  EXPECT(GradientMiss(&c, &g) < 1e-5);
  EXPECT(strlen(regard_selection_kernel(selection)) > 0);
  EXPECT(regard_backward_problem_print(&g.args, &c.options, text, sizeof(text), &needed) == REGARD_OK);
  EXPECT_TEXT(text, "backward b=1 sq=17 skv=17 hq=4 hkv=2 d=8 dv=5 dtype=f32 causal dlse");
  regard_selection_destroy(selection);
}

static void test_a_backward_plan_is_launched_by_its_own_function(void) {
  Call c;
  Gradients g, other;
  regard_selection* selection = NULL;
  regard_plan* plan = NULL;
  Init(&c);
  EXPECT(regard_attention(&c.args, &c.options, NULL) == REGARD_OK);
  InitGradients(&g, &c);
  InitGradients(&other, &c);
  EXPECT(regard_attention_backward(&g.args, &c.options, &selection) == REGARD_OK);
  EXPECT(regard_plan_create(selection, 2, &plan) == REGARD_OK);
  const size_t bytes = regard_plan_workspace_bytes(plan);
  void* workspace = malloc(bytes + 1);
  EXPECT(regard_launch_backward(plan, &other.args, workspace, bytes) == REGARD_OK);
  EXPECT(memcmp(g.dq, other.dq, sizeof(g.dq)) == 0 && memcmp(g.dk, other.dk, sizeof(g.dk)) == 0 &&
         memcmp(g.dv, other.dv, sizeof(g.dv)) == 0);
  EXPECT(regard_launch(plan, &c.args, workspace, bytes) == REGARD_INVALID_ARGUMENT);
  EXPECT_TEXT(regard_last_error_field(), "plan");
  EXPECT(regard_launch_backward(NULL, &other.args, workspace, bytes) == REGARD_INVALID_ARGUMENT);
  free(workspace);
  regard_plan_destroy(plan);
  regard_selection_destroy(selection);
}

static void test_backward_errors_name_their_field_and_write_nothing(void) {
  Call c;
  Gradients g;
  Init(&c);
  EXPECT(regard_attention(&c.args, &c.options, NULL) == REGARD_OK);
  InitGradients(&g, &c);
  Fill(g.dq, S * HQ * D, 77);
  const float before = g.dq[3];
  EXPECT(regard_attention_backward(NULL, &c.options, NULL) == REGARD_INVALID_ARGUMENT);
  EXPECT_TEXT(regard_last_error_field(), "args");
  const regard_tensor* const good[] = {g.args.dout, g.args.dq, g.args.dk, g.args.dv};
  const regard_tensor** const slots[] = {&g.args.dout, &g.args.dq, &g.args.dk, &g.args.dv};
  const char* const names[] = {"dout", "dq", "dk", "dv"};
  for (int n = 0; n < 4; ++n) {
    *slots[n] = NULL;
    EXPECT(regard_attention_backward(&g.args, &c.options, NULL) == REGARD_INVALID_ARGUMENT);
    EXPECT_TEXT(regard_last_error_field(), names[n]);
    *slots[n] = good[n];
  }
  g.tdk.data = NULL;
  EXPECT(regard_attention_backward(&g.args, &c.options, NULL) == REGARD_INVALID_ARGUMENT);
  EXPECT_TEXT(regard_last_error_field(), "dk.data");
  g.tdk.data = g.dk;
  g.args.forward = NULL;
  EXPECT(regard_attention_backward(&g.args, &c.options, NULL) == REGARD_INVALID_ARGUMENT);
  EXPECT_TEXT(regard_last_error_field(), "forward");
  g.args.forward = &c.args;
  c.args.lse = NULL;
  EXPECT(regard_attention_backward(&g.args, &c.options, NULL) == REGARD_INVALID_ARGUMENT);
  EXPECT_TEXT(regard_last_error_field(), "lse");
  c.args.lse = &c.tlse;
  g.args.struct_size = 3;
  EXPECT(regard_attention_backward(&g.args, &c.options, NULL) == REGARD_INVALID_ARGUMENT);
  EXPECT_TEXT(regard_last_error_field(), "backward_args.struct_size");
  EXPECT(g.dq[3] == before);
}

static void test_merge_with_the_identity_changes_nothing(void) {
  float o[2 * DV], zero[2 * DV] = {0}, merged[2 * DV];
  float lse[2] = {0.5f, -3}, nothing[2] = {-INFINITY, -INFINITY}, merged_lse[2];
  Fill(o, 2 * DV, 9);
  const regard_tensor to = View(o, REGARD_F32, 3, 1, 2, DV, 0), tzero = View(zero, REGARD_F32, 3, 1, 2, DV, 0);
  const regard_tensor tl = View(lse, REGARD_F32, 2, 2, 1, 0, 0), tn = View(nothing, REGARD_F32, 2, 2, 1, 0, 0);
  const regard_tensor tm = View(merged, REGARD_F32, 3, 1, 2, DV, 0), tml = View(merged_lse, REGARD_F32, 2, 2, 1, 0, 0);
  EXPECT(regard_merge_states(&to, &tl, &tzero, &tn, &tm, &tml) == REGARD_OK);
  EXPECT(memcmp(merged, o, sizeof(o)) == 0);
  EXPECT(memcmp(merged_lse, lse, sizeof(lse)) == 0);
  EXPECT(regard_merge_states(&to, NULL, &tzero, &tn, &tm, &tml) == REGARD_INVALID_ARGUMENT);
  EXPECT_TEXT(regard_last_error_field(), "lse_a");
}

static void test_maps_agree_with_a_hand_loop_and_with_each_other(void) {
  static float probabilities[HQ * S * S];
  static bool kept[HQ * S * S];
  Call c;
  Init(&c);
  c.options.dropout = 0.5;
  c.args.dropout_seed = 7;
  c.args.out = NULL;
  const regard_tensor p = View(probabilities, REGARD_F32, 4, 1, HQ, S, S), m = View(kept, REGARD_BOOL, 4, 1, HQ, S, S);
  EXPECT(regard_attention_probabilities(&c.args, &c.options, &p) == REGARD_OK);
  EXPECT(regard_dropout_mask(&c.args, &c.options, &m) == REGARD_OK);
  double miss = 0, hand[S];
  for (int h = 0; h < HQ; ++h) {
    for (int i = 0; i < S; ++i) {
      HandSoftmax(&c, h, i, i + 1, 1 / sqrt(D), hand);
      for (int j = 0; j < S; ++j) {
        miss = fmax(miss, fabs((j <= i ? hand[j] : 0) - probabilities[(h * S + i) * S + j]));
      }
    }
  }
  EXPECT(miss < 1e-6);
  c.args.out = &c.tout;
  EXPECT(regard_attention(&c.args, &c.options, NULL) == REGARD_OK);
  miss = 0;
  int drops = 0;
  for (int n = 0; n < HQ * S * S; ++n) drops += !kept[n];
  for (int h = 0; h < HQ; ++h) {
    for (int i = 0; i < S; ++i) {
      for (int e = 0; e < DV; ++e) {
        double o = 0;
        for (int j = 0; j < S; ++j) {
          const int n = (h * S + i) * S + j;
          if (kept[n]) o += 2 * probabilities[n] * c.v[(j * HKV + h / (HQ / HKV)) * DV + e];
        }
        miss = fmax(miss, fabs(o - c.out[(i * HQ + h) * DV + e]));
      }
    }
  }
  EXPECT(miss < 1e-5);
  EXPECT(drops > HQ * S * S / 3 && drops < 2 * HQ * S * S / 3);
}

static void test_a_map_of_another_shape_or_type_is_refused_unwritten(void) {
  static float memory[HQ * S * S];
  Call c;
  Init(&c);
  const regard_tensor narrow = View(memory, REGARD_F32, 4, 1, HQ, S, S - 1);
  const regard_tensor fits = View(memory, REGARD_F32, 4, 1, HQ, S, S);
  EXPECT(regard_attention_probabilities(&c.args, &c.options, &narrow) == REGARD_INVALID_ARGUMENT);
  EXPECT_TEXT(regard_last_error_field(), "map");
  EXPECT(regard_dropout_mask(&c.args, &c.options, &fits) == REGARD_INVALID_ARGUMENT);
  EXPECT_TEXT(regard_last_error_field(), "map");
  EXPECT(regard_dropout_mask(&c.args, &c.options, NULL) == REGARD_INVALID_ARGUMENT);
  regard_tensor turned = fits;
  turned.stride[2] = 1;
  turned.stride[3] = S;
  EXPECT(regard_attention_probabilities(&c.args, &c.options, &turned) == REGARD_INVALID_ARGUMENT);
  regard_tensor nowhere = fits;
  nowhere.data = NULL;
  EXPECT(regard_attention_probabilities(&c.args, &c.options, &nowhere) == REGARD_INVALID_ARGUMENT);
  EXPECT_TEXT(regard_last_error_field(), "map.data");
  for (int n = 0; n < HQ * S * S; ++n) EXPECT(memory[n] == 0);
}

static void test_tensor_contiguous_checks_its_arguments(void) {
  float x[6];
  const int64_t shape[2] = {2, 3}, negative[2] = {2, -3}, huge[2] = {INT64_MAX, 4};
  regard_tensor t;
  EXPECT(regard_tensor_contiguous(x, REGARD_F32, 2, shape, &t) == REGARD_OK);
  EXPECT(t.data == x && t.rank == 2 && t.stride[0] == 3 && t.stride[1] == 1);
  EXPECT(regard_tensor_contiguous(x, REGARD_F32, 2, negative, &t) == REGARD_INVALID_ARGUMENT);
  EXPECT(regard_tensor_contiguous(x, REGARD_F32, 2, huge, &t) == REGARD_INVALID_ARGUMENT);
  EXPECT(regard_tensor_contiguous(x, REGARD_F32, 6, shape, &t) == REGARD_INVALID_ARGUMENT);
  EXPECT(regard_tensor_contiguous(x, REGARD_F32, 2, NULL, &t) == REGARD_INVALID_ARGUMENT);
  EXPECT(regard_tensor_contiguous(x, (regard_dtype)42, 2, shape, &t) == REGARD_INVALID_ARGUMENT);
  EXPECT_TEXT(regard_last_error_field(), "tensor.dtype");
}

static void test_a_gpu_that_is_not_here_is_selected_for_and_explained_by_name(void) {
  const char* text = "prefill sq=64 skv=64 d=128 dtype=bf16";
  regard_selection* selection = NULL;
  EXPECT(regard_select_on(text, "A100", NULL, NULL, &selection) == REGARD_OK);
  EXPECT_TEXT(regard_selection_kernel(selection), "cuda.sm80.prefill.bf16");
  char explained[16384];
  EXPECT(regard_selection_explain(selection, REGARD_TEXT, explained, sizeof explained, NULL) == REGARD_OK);
  EXPECT(strstr(explained, "A100, sm_80") != NULL);
  regard_selection_destroy(selection);
  EXPECT(regard_select_on(text, "cpu", NULL, NULL, &selection) == REGARD_OK);
  EXPECT(strncmp(regard_selection_kernel(selection), "cpu.", 4) == 0);
  regard_selection_destroy(selection);
  EXPECT(regard_select_on(text, "A1000", NULL, NULL, &selection) == REGARD_INVALID_ARGUMENT);
  EXPECT_TEXT(regard_last_error_field(), "device");
  EXPECT(selection == NULL);
  EXPECT(regard_select_on(text, NULL, NULL, NULL, &selection) == REGARD_INVALID_ARGUMENT);
  EXPECT(regard_check_device(1000, NULL) == REGARD_INVALID_ARGUMENT);
}

static void test_kernel_table_ends_with_the_reference(void) {
  const size_t count = regard_kernel_count();
  EXPECT(count >= 1);
  for (size_t i = 0; i < count; ++i) EXPECT(strlen(regard_kernel_name(i)) > 0);
  EXPECT_TEXT(regard_kernel_name(count - 1), "reference");
  EXPECT(regard_kernel_name(count) == NULL);
}

#define RUN(test)                                              \
  do {                                                         \
    const int before = g_failures;                             \
    test();                                                    \
    printf("%s %s\n", g_failures == before ? "ok  " : "FAIL", #test); \
  } while (0)

int main(void) {
  RUN(test_version_is_that_of_the_header);
  RUN(test_attention_agrees_with_a_hand_loop);
  RUN(test_plan_is_launched_many_times_and_gives_the_bits_of_one_call);
  RUN(test_errors_name_field_value_and_expectation_and_write_nothing);
  RUN(test_last_error_belongs_to_its_thread);
  RUN(test_struct_size_lets_old_and_new_programs_in);
  RUN(test_problem_text_goes_in_and_comes_out);
  RUN(test_selection_explains_itself);
  RUN(test_kvcache_appends_in_place);
  RUN(test_a_callers_functions_change_scores_and_hide_keys);
  RUN(test_backward_agrees_with_a_hand_loop);
  RUN(test_a_backward_plan_is_launched_by_its_own_function);
  RUN(test_backward_errors_name_their_field_and_write_nothing);
  RUN(test_merge_with_the_identity_changes_nothing);
  RUN(test_maps_agree_with_a_hand_loop_and_with_each_other);
  RUN(test_a_map_of_another_shape_or_type_is_refused_unwritten);
  RUN(test_tensor_contiguous_checks_its_arguments);
  RUN(test_a_gpu_that_is_not_here_is_selected_for_and_explained_by_name);
  RUN(test_kernel_table_ends_with_the_reference);
  return g_failures == 0 ? 0 : 1;
}
