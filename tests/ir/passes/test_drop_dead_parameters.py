"""drop-dead-parameters: text before and after."""

from pass_checks import assert_rewrites


def test_what_nothing_reads_goes_and_what_is_returned_stays():
    assert_rewrites(
        "drop-dead-parameters",
        before="""graph g(%x: f32[N,4]) -> f32[N,4], f32[4] {
          param @read: f32[4]
          param @dead: f32[9]
          param @count: i64[]
          param @returned: f32[4]
          %y = add(%x, @read) : f32[N,4]
          return %y, @returned
        }""",
        after="""graph g(%x: f32[N,4]) -> f32[N,4], f32[4] {
          param @read: f32[4]
          param @returned: f32[4]
          %y = add(%x, @read) : f32[N,4]
          return %y, @returned
        }""",
    )
