"""ONNX Runtime's attention operators on the CPU, each as a model of one node: GroupQueryAttention over grouped heads,
with the cache in place for decode, and MultiHeadAttention over repeated heads or with the query group folded into rows
(in decode always the latter, where nothing is hidden)."""
import numpy as np
import onnx
import onnxruntime as ort
from onnx import TensorProto, helper

from case_data import Cannot, fold_group, heads_first, huge_array, huge_copy, unfold_group
from choose import fastest

ONNX_TYPES = {"f32": TensorProto.FLOAT, "f16": TensorProto.FLOAT16, "bf16": TensorProto.BFLOAT16}
DOMAIN = "com.microsoft"


def one_node(operator, inputs, outputs, attributes):
    """A model of one node. inputs: (name, type, shape) or None for one left out; outputs: (name, type)."""
    names = [i[0] if i else "" for i in inputs]
    node = helper.make_node(operator, names, [o[0] for o in outputs], domain=DOMAIN, **attributes)
    graph = helper.make_graph(
        [node], operator, [helper.make_tensor_value_info(*i) for i in inputs if i],
        [helper.make_tensor_value_info(name, kind, None) for name, kind in outputs])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17), helper.make_opsetid(DOMAIN, 1)])
    model.ir_version = min(model.ir_version, 10)
    return model.SerializeToString()


def joined_heads(array):
    """(B, S, H, D) as (B, S, H * D), dense."""
    return array.reshape(array.shape[0], array.shape[1], -1)


class OrtPeer:
    def __init__(self, threads):
        self.threads = threads

    def version(self):
        return "onnxruntime " + ort.__version__

    def session(self, model):
        options = ort.SessionOptions()
        options.intra_op_num_threads = self.threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 4
        # Its threads may spin while a call runs, not between calls: regard and the other peers run then.
        options.add_session_config_entry("session.force_spinning_stop", "1")
        return ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])

    def bound(self, model, feeds, outputs):
        """call() over inputs and outputs that stay where they are; feeds and outputs: name -> array."""
        session = self.session(model)
        binding = session.io_binding()
        values = {name: ort.OrtValue.ortvalue_from_numpy(array) for name, array in feeds.items()}
        for name, value in values.items():
            binding.bind_ortvalue_input(name, value)
        for name, array in outputs.items():
            known = [v for n, v in values.items() if feeds[n] is array]  # a cache that is written in place
            binding.bind_ortvalue_output(name, known[0] if known else ort.OrtValue.ortvalue_from_numpy(array))

        def call():
            session.run_with_iobinding(binding)
            return values

        return call


class OrtGqa(OrtPeer):
    def prepare(self, case):
        if not self._causal(case) and (case.window_left is not None or case.window_right is not None):
            raise Cannot("GroupQueryAttention has windows only where it is causal")
        if case.dv != case.d:
            raise Cannot("GroupQueryAttention needs equal head sizes of K and V")
        return fastest([("cache in place" if case.skv > case.sq else "whole prompt", lambda: self._make(case))])

    @staticmethod
    def _causal(case):
        """A single query sees every key to its left either way, and the operator's default is causal."""
        return case.causal or case.window_right == 0 or case.sq == 1

    def _make(self, case):
        kind = ONNX_TYPES[case.dtype]
        past = case.skv - case.sq
        cache = (case.batch, case.hkv, case.skv, case.d)
        inputs = [("query", kind, (case.batch, case.sq, case.hq * case.d)),
                  ("key", kind, (case.batch, case.sq, case.hkv * case.d)),
                  ("value", kind, (case.batch, case.sq, case.hkv * case.d)),
                  ("past_key", kind, cache) if past else None, ("past_value", kind, cache) if past else None,
                  ("seqlens_k", TensorProto.INT32, (case.batch,)),
                  ("total_sequence_length", TensorProto.INT32, (1,))]
        attributes = {"num_heads": case.hq, "kv_num_heads": case.hkv, "scale": case.scale}
        if not self._causal(case):
            attributes["causal"] = 0
        if case.softcap:
            attributes["softcap"] = case.softcap
        if case.window_left is not None:
            attributes["local_window_size"] = case.window_left + 1
        model = one_node("GroupQueryAttention", inputs,
                         [("out", kind), ("present_key", kind), ("present_value", kind)], attributes)
        self.session(model)  # refuses a type before anything is copied
        k = huge_copy(heads_first(case.k)) if past else huge_array(cache, case.k.dtype)
        v = huge_copy(heads_first(case.v)) if past else huge_array(cache, case.v.dtype)
        feeds = {"query": huge_copy(joined_heads(case.q)), "key": huge_copy(joined_heads(case.k[:, past:])),
                 "value": huge_copy(joined_heads(case.v[:, past:])),
                 "seqlens_k": np.full(case.batch, case.skv - 1, np.int32),
                 "total_sequence_length": np.array([case.skv], np.int32)}
        if past:
            feeds.update(past_key=k, past_value=v)
        out = huge_array(case.q.shape[:2] + (case.hq * case.dv,), case.q.dtype)
        call = self.bound(model, feeds, {"out": out, "present_key": k, "present_value": v})
        return call, lambda _: out.reshape(case.out_shape).astype(np.float32)


class OrtMha(OrtPeer):
    def prepare(self, case):
        if case.softcap:
            raise Cannot("MultiHeadAttention has no softcap")
        folds = case.group > 1 and not case.hides()
        ways = [("group folded", lambda: self._make(case, True))] if folds else []
        if not (folds and case.is_decode()):
            ways.append(("heads repeated" if case.group > 1 else "heads as they are", lambda: self._make(case, False)))
        return fastest(ways)

    def _make(self, case, folded):
        kind = ONNX_TYPES[case.dtype]
        heads, rows = (case.hkv, case.group * case.sq) if folded else (case.hq, case.sq)
        masked = case.hides() and not case.plain_causal()
        inputs = [("query", kind, (case.batch, rows, heads * case.d)),
                  ("key", kind, (case.batch, case.skv, heads * case.d)),
                  ("value", kind, (case.batch, case.skv, heads * case.dv)), None, None,
                  ("attention_bias", kind, (1, 1, case.sq, case.skv)) if masked else None]
        attributes = {"num_heads": heads, "scale": case.scale, "unidirectional": int(case.plain_causal())}
        model = one_node("MultiHeadAttention", inputs, [("out", kind)], attributes)
        self.session(model)  # refuses a type before anything is copied
        def heads_beside(array):  # (B, S, heads * D), each head as often as asked for
            if folded or case.group == 1:
                return huge_copy(joined_heads(array))
            shape = array.shape[:3] + (case.group, array.shape[3])
            copy = huge_array(shape, array.dtype)
            np.copyto(copy, array[:, :, :, None])
            return joined_heads(copy.reshape(shape[:2] + (heads, shape[4])))

        feeds = {"query": huge_copy(joined_heads(fold_group(case, case.q) if folded else case.q)),
                 "key": heads_beside(case.k),
                 "value": heads_beside(case.v)}
        if masked:
            feeds["attention_bias"] = np.where(case.visible(), 0, -np.inf).astype(case.q.dtype)[None, None]
        out = huge_array((case.batch, rows, heads * case.dv), case.q.dtype)
        call = self.bound(model, feeds, {"out": out})

        def fetch(_):
            if folded:
                return unfold_group(case, out.reshape(case.batch, rows, heads, case.dv)).astype(np.float32)
            return out.reshape(case.out_shape).astype(np.float32)

        return call, fetch
